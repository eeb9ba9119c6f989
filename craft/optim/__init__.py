"""Optimisers: gradients to updates, as pure transforms with explicit state.

A transform is made by a function of this room and joined with others by `chain`; `AdamW`, `SGD`, `Lion` and `Muon` are
recipes, values that an experiment holds in its configuration. Coefficients near one are given as their complement,
c = 1 - beta: a float32 tensor keeps four more digits of it there.
"""

from craft.optim.adam import scale_by_adam as scale_by_adam
from craft.optim.averaging import average as average
from craft.optim.averaging import averaged as averaged
from craft.optim.clip import clip_by_norm as clip_by_norm
from craft.optim.compose import chain as chain
from craft.optim.compose import identity as identity
from craft.optim.compose import scale as scale
from craft.optim.compose import scale_by_rate as scale_by_rate
from craft.optim.decay import add_decay as add_decay
from craft.optim.lion import scale_by_lion as scale_by_lion
from craft.optim.momentum import trace as trace
from craft.optim.muon import orthogonalise as orthogonalise
from craft.optim.muon import scale_by_muon as scale_by_muon
from craft.optim.recipes import SGD as SGD
from craft.optim.recipes import AdamW as AdamW
from craft.optim.recipes import Lion as Lion
from craft.optim.recipes import Muon as Muon
from craft.optim.routing import groups as groups
from craft.optim.routing import route as route
from craft.optim.routing import route_by_path as route_by_path
