"""Gradient estimators: functions that make or wrap a GradFn."""

from craft.grad.accumulate import accumulate as accumulate
from craft.grad.forward import forward as forward
from craft.grad.remat import remat as remat
from craft.grad.reverse import reverse as reverse
from craft.grad.sample import sample as sample
from craft.grad.scale import Scaling as Scaling
from craft.grad.scale import scale as scale
from craft.grad.scale import start_scaling as start_scaling
from craft.grad.sharpness import sharpness as sharpness
