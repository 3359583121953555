"""The library's trainer with batches by source, losses by group, and figures of a run's speed."""

import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import MultiVectorEncoderTrainer
from transformers import PrinterCallback, ProgressCallback, TrainerCallback

from metaembed.training.provenance import write_record

GIB = 2**30


class MetaEmbedTrainer(MultiVectorEncoderTrainer):
    """`MultiVectorEncoderTrainer` that takes its batches from `batches`.

    Every log entry also has the loss of each group, items a second and the peak of memory in GiB.
    Checkpoints hold the run's record.
    """

    def __init__(
        self, *, batches: Any, record: dict[str, Any], progress: bool, **kwargs: Any
    ) -> None:
        self._batches = batches
        self._started: tuple[float, int] | None = None
        super().__init__(**kwargs)
        for callback in (ProgressCallback, PrinterCallback):
            self.remove_callback(callback)
        self.add_callback(_KeepRecord(record))
        self.add_callback(_TellEpoch(batches))
        if progress:
            self.add_callback(Console())

    def add_model_card_callback(self, *_args: Any, **_kwargs: Any) -> None:
        """The record says what a card would, and looking for widget examples reads many rows."""

    def get_batch_sampler(self, *_args: Any, **_kwargs: Any) -> Any:
        return self._batches

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        found = super().compute_loss(*args, **kwargs)
        losses = self.loss.last_group_losses
        if losses is not None and self.model.training:
            names = [f"loss_{group}" for group in self.loss.groups]
            self.track_loss_components(dict(zip(names, losses.unbind(), strict=True)))
        return found

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs = {**logs, **self._speed()}
        super().log(logs, start_time)

    def _speed(self) -> dict[str, float]:
        now, step = time.perf_counter(), self.state.global_step
        figures = {"peak_memory_gib": round(peak_memory() / GIB, 3)}
        if self._started is not None and step > self._started[1]:
            seconds, steps = now - self._started[0], step - self._started[1]
            rows = steps * self.args.train_batch_size * self.args.world_size
            figures["items_per_second"] = round(rows / seconds, 2)
        self._started = now, step
        return figures


def peak_memory() -> int:
    """Bytes that this process has had at most: of the GPU's memory where there is one."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


class _TellEpoch(TrainerCallback):
    """Tells the batches which epoch it is: accelerate does not when a run that was cut goes on."""

    def __init__(self, batches: Any) -> None:
        self._batches = batches

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_kwargs: Any) -> None:  # noqa: ARG002
        self._batches.set_epoch(int(state.epoch))


class _KeepRecord(TrainerCallback):
    """Puts the run's record beside every checkpoint."""

    def __init__(self, record: dict[str, Any]) -> None:
        self._record = record

    def on_save(self, args: Any, state: Any, control: Any, **_kwargs: Any) -> None:  # noqa: ARG002
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            write_record({**self._record, "step": state.global_step}, folder)


class Console(TrainerCallback):
    """A progress bar, and a line for every log entry."""

    def __init__(self) -> None:
        self._bar: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_kwargs: Any) -> None:  # noqa: ARG002
        if state.is_world_process_zero:
            from tqdm import tqdm

            self._bar = tqdm(
                total=state.max_steps, initial=state.global_step, unit="step", desc="Training"
            )

    def on_step_end(self, args: Any, state: Any, control: Any, **_kwargs: Any) -> None:  # noqa: ARG002
        if self._bar is not None:
            self._bar.update(state.global_step - self._bar.n)

    def on_log(
        self,
        args: Any,  # noqa: ARG002
        state: Any,
        control: Any,  # noqa: ARG002
        logs: dict[str, float] | None = None,
        **_kwargs: Any,
    ) -> None:
        if self._bar is not None and (line := console_line(state.global_step, logs or {})):
            self._bar.write(line, file=sys.stderr)

    def on_train_end(self, args: Any, state: Any, control: Any, **_kwargs: Any) -> None:  # noqa: ARG002
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def console_line(step: int, logs: dict[str, float]) -> str:
    """What a person wants to know of a log entry; empty for one that is of no interest.

    >>> console_line(20, {"loss": 3.5, "loss_1x1": 2.5, "loss_2x4": 1.0, "items_per_second": 8.0})
    'step 20  loss 3.5 (1x1 2.5, 2x4 1.0)  8.0 items/s'
    """
    if "loss" in logs:
        groups = [
            f"{name.removeprefix('loss_')} {value}"
            for name, value in logs.items()
            if name.startswith("loss_")
        ]
        line = f"step {step}  loss {logs['loss']}"
        line += f" ({', '.join(groups)})" if groups else ""
        line += f"  {logs['items_per_second']} items/s" if "items_per_second" in logs else ""
        return line + (f"  {logs['peak_memory_gib']} GiB" if "peak_memory_gib" in logs else "")
    found = [
        f"{name.removeprefix('eval_').removesuffix('_ndcg@5')} {value:.3f}"
        for name, value in logs.items()
        if name.endswith("_ndcg@5")
    ]
    return f"step {step}  validation NDCG@5: {', '.join(found)}" if found else ""
