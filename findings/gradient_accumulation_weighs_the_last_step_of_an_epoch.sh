#!/bin/bash
# accelerate 1.15.0, pytorch-lightning 2.6.6, pytorch-ignite 0.5.5: accumulating gradients where an epoch's micro-batches are
# not a multiple of the window (5 micro-batches, windows of 2), torch 2.13.0 on the CPU.
#
# Guess: an optimizer step has the mean of the gradients of the micro-batches that it is of; the epoch's last has those that are left, or
#   they are left out. Every micro-batch's gradient is 1 here, so every step's should be 1.
# Behaviour: three libraries, two answers, neither of them that.
#   accelerate and lightning step with what is left and divide it by the whole window: the last step of each epoch has half the
#   gradient.
#   ignite counts through: five steps in two epochs, so the third is of the last micro-batch of one epoch and the first of the
#   next.
# Output seen (gradients of the steps, two epochs):
#   accelerate: [1.0, 1.0, 0.5, 1.0, 1.0, 0.5]
#   lightning: [1.0, 1.0, 0.5, 1.0, 1.0, 0.5]
#   ignite: [1.0, 1.0, 1.0, 1.0, 1.0]
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0
"$folder/venv/bin/pip" install -q accelerate==1.15.0 pytorch-lightning==2.6.6 pytorch-ignite==0.5.5 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PY'
import logging
import warnings

import pytorch_lightning
import torch
from accelerate import Accelerator
from ignite.engine import create_supervised_trainer
from torch.utils.data import DataLoader, TensorDataset

warnings.simplefilter("ignore")
logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
WINDOW, EPOCHS = 2, 2


class Net(torch.nn.Module):
    """Its output, which is also the loss, has the gradient 1."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return (self.weight * x).mean()


def micro_batches():
    return DataLoader(TensorDataset(torch.ones(10, 1), torch.ones(10, 1)), batch_size=2)


def parts():
    """A network, its optimizer, a list, and what is to be called before each step and appends the gradient to the list."""
    net, gradients = Net(), []
    return net, torch.optim.SGD(net.parameters(), 1.0), gradients, lambda *_: gradients.append(net.weight.grad.item())


def by_accelerate():
    accelerator = Accelerator(gradient_accumulation_steps=WINDOW, cpu=True)
    net, optimizer, gradients, note = parts()
    optimizer.register_step_pre_hook(note)
    net, optimizer, batches = accelerator.prepare(net, optimizer, micro_batches())
    for _ in range(EPOCHS):
        for x, _ in batches:
            with accelerator.accumulate(net):
                accelerator.backward(net(x))
                optimizer.step()
                optimizer.zero_grad()
    return gradients


def by_lightning():
    net, optimizer, gradients, note = parts()

    class Module(pytorch_lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = net

        def training_step(self, batch, _):
            return self.net(batch[0])

        def configure_optimizers(self):
            return optimizer

        def on_before_optimizer_step(self, _):
            note()

    quiet = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
    trainer = pytorch_lightning.Trainer(max_epochs=EPOCHS, accumulate_grad_batches=WINDOW, accelerator="cpu", **quiet)
    trainer.fit(Module(), micro_batches())
    return gradients


def by_ignite():
    net, optimizer, gradients, note = parts()
    optimizer.register_step_pre_hook(note)
    engine = create_supervised_trainer(net, optimizer, lambda y, _: y, gradient_accumulation_steps=WINDOW)
    engine.run(micro_batches(), max_epochs=EPOCHS)
    return gradients


found = {"accelerate": by_accelerate(), "lightning": by_lightning(), "ignite": by_ignite()}
for name, gradients in found.items():
    print(f"{name}: {gradients}")
assert found["accelerate"] == found["lightning"] == [1, 1, 0.5] * 2 and found["ignite"] == [1] * 5
PY
