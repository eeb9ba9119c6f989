"""Hugging Face: GPT2LMHeadModel in the loop of its Trainer, and its `generate`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - everybody's name for it
from torch.utils.data import IterableDataset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

from tools.bench.beat import Beat
from tools.bench.setup import Setup

__all__ = ["generate", "load", "train"]

_NAMES = {"qkv": "attn.c_attn", "proj": "attn.c_proj", "fc": "mlp.c_fc", "out": "mlp.c_proj", "ln1": "ln_1", "ln2": "ln_2"}


def load(setup: Setup) -> GPT2LMHeadModel:
    """Build the model of a case with the shared initial weights."""
    case = setup.case
    config = GPT2Config(
        vocab_size=case.vocabulary,
        n_positions=case.context,
        n_embd=case.width,
        n_layer=case.depth,
        n_head=case.heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=None,
        pad_token_id=0,
    )
    model = GPT2LMHeadModel(config)
    named = dict(model.named_parameters())
    with torch.no_grad():
        for name, array in setup.material.weights().items():
            named[_theirs(name)].copy_(torch.from_numpy(array))
    return model


def _theirs(name: str) -> str:
    first, *rest = name.split(".")
    if first == "blocks":
        depth, part, leaf = rest
        return f"transformer.h.{depth}.{_NAMES[part]}.{leaf}"
    return f"transformer.{first.replace('lnf', 'ln_f')}.{rest[0] if rest else 'weight'}"


class _Samples(IterableDataset[dict[str, torch.Tensor]]):
    def __init__(self, ids: torch.Tensor) -> None:
        self.ids = ids.flatten(0, 1)

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        while True:
            yield from ({"input_ids": row[:-1], "labels": row[1:]} for row in self.ids)


class _Turns(TrainerCallback):  # type: ignore[misc, unused-ignore]
    def __init__(self, beat: Beat, model: GPT2LMHeadModel) -> None:
        self.beat, self.parameters, self.loss = beat, sum(value.numel() for value in model.parameters()), torch.zeros(())

    def on_train_begin(self, *args: Any, **more: Any) -> None:
        self.beat.start(parameters=self.parameters)

    def on_step_end(self, *args: Any, **more: Any) -> None:
        self.beat(self.loss.item)

    def nats(self, outputs: Any, labels: torch.Tensor, **more: Any) -> torch.Tensor:
        """Compute the loss of targets that are shifted already."""
        loss = F.cross_entropy(outputs.logits.float().flatten(0, 1), labels.flatten())
        self.loss = loss.detach()
        return loss


def train(setup: Setup, beat: Beat) -> None:
    """Let the Trainer train on the shared batches until the parent says stop."""
    torch.set_num_threads(setup.threads)
    model = load(setup)
    turns = _Turns(beat, model)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=setup.case.batch,
            max_steps=10**9,
            learning_rate=1e-3,
            lr_scheduler_type="constant",
            adam_beta2=0.99,
            weight_decay=0.1,
            max_grad_norm=1.0,
            optim="adamw_torch_fused",
            bf16=setup.bf16,
            torch_compile=setup.contestant.variant == "compiled",
            use_cpu=setup.device == "cpu",
            dataloader_pin_memory=setup.device != "cpu",
            logging_strategy="no",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        data = _Samples(torch.from_numpy(setup.material.batches()))
        Trainer(model, arguments, train_dataset=data, compute_loss_func=turns.nats, callbacks=[turns]).train()


def generate(setup: Setup) -> tuple[Callable[[int], list[int]], dict[str, Any]]:
    """Make a function that writes a number of tokens after the prompt, greedily, with a key-value cache, and facts of it."""
    torch.set_num_threads(setup.threads)
    model = load(setup).eval().to(torch.bfloat16 if setup.bf16 else torch.float32).to(setup.device)
    prompt = torch.from_numpy(setup.material.batches())[0, :1, : setup.options["prompt"]].to(setup.device)

    def write(tokens: int) -> list[int]:
        with torch.no_grad():
            ids = model.generate(
                prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False
            )
        written: list[int] = ids[0, prompt.shape[1] :].tolist()
        return written

    return write, {"stand_in": False}
