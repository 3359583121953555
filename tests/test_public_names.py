import metaembed


def test_every_public_name_is_there():
    for name in metaembed.__all__:
        assert getattr(metaembed, name) is not None


def test_the_changelog_names_the_current_version():
    from pathlib import Path

    changelog = Path(__file__).parent.parent / "CHANGELOG.md"
    assert f"## [{metaembed.__version__}]" in changelog.read_text(encoding="utf-8")
