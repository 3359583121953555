"""One module a family of backbones, named after its `config.model_type`; each holds `FAMILY`."""
