"""Gradient estimators: functions that make or wrap a GradFn."""

from craft.grad.accumulate import accumulate as accumulate
from craft.grad.forward import forward as forward
from craft.grad.remat import remat as remat
from craft.grad.reverse import reverse as reverse
from craft.grad.sample import sample as sample
from craft.grad.sharpness import sharpness as sharpness
