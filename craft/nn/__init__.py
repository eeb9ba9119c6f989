"""Layers as functions of tensors."""

from craft.nn.attention import attend as attend
from craft.nn.attention import attend_documents as attend_documents
from craft.nn.attention import attend_fused as attend_fused
from craft.nn.attention import attend_math as attend_math
from craft.nn.attention import attend_pairs as attend_pairs
from craft.nn.dropout import dropout as dropout
from craft.nn.embed import embed as embed
from craft.nn.linear import linear as linear
from craft.nn.norm import layer_norm as layer_norm
from craft.nn.norm import rms_norm as rms_norm
from craft.nn.rotary import rotary as rotary
from craft.nn.scan import scan as scan
from craft.nn.scan import scan_loop as scan_loop
from craft.nn.scan import scan_math as scan_math
