"""PyTorch Lightning: the plain loop's model in a LightningModule, in the loop of its Trainer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from tools.bench.beat import Beat
from tools.bench.peers import plain
from tools.bench.setup import Setup

__all__ = ["train"]


class _Module(lightning.LightningModule):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        inputs_BT, targets_BT = batch
        return plain.nats(self.model(inputs_BT), targets_BT)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return plain.optimiser(self.model)

    def configure_gradient_clipping(self, optimizer: Any, *args: Any, **more: Any) -> None:
        # Lightning's own clipping refuses a fused optimiser in mixed precision.
        nn.utils.clip_grad_norm_(self.parameters(), 1.0)


class _Batches(IterableDataset[tuple[Tensor, Tensor]]):
    def __init__(self, ids: Tensor) -> None:
        self.batches = [(each[:, :-1].contiguous(), each[:, 1:].contiguous()) for each in ids]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield from self.batches


class _Turns(lightning.Callback):
    def __init__(self, beat: Beat, parameters: int) -> None:
        self.beat, self.parameters = beat, parameters

    def on_train_start(self, *args: Any, **more: Any) -> None:
        self.beat.start(parameters=self.parameters)

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *args: Any, **more: Any) -> None:
        self.beat(outputs["loss"].item)


def train(setup: Setup, beat: Beat) -> None:
    """Let the Trainer train on the shared batches until the parent says stop."""
    torch.set_num_threads(setup.threads)
    model = plain.load(setup)
    parameters = sum(value.numel() for value in model.parameters())
    if setup.contestant.variant == "compiled":
        model.compile()
    trainer = lightning.Trainer(
        accelerator="cpu" if setup.device == "cpu" else "gpu",
        devices=1,
        precision="bf16-mixed" if setup.bf16 else "32-true",
        max_steps=-1,
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[_Turns(beat, parameters)],
    )
    batches = _Batches(torch.from_numpy(setup.material.batches()))
    trainer.fit(_Module(model), DataLoader(batches, batch_size=None))
