"""Where the numbers of a run go: the record on the disk, the terminal, and mirrors of it."""

from craft.track.choose import open as open
from craft.track.console import Console as Console
from craft.track.jsonl import Jsonl as Jsonl
from craft.track.jsonl import read as read
from craft.track.login import resolve as resolve
from craft.track.many import Many as Many
from craft.track.mirror import Wandb as Wandb
from craft.track.tensorboard import TensorBoard as TensorBoard
from craft.track.tracker import Info as Info
from craft.track.tracker import Report as Report
from craft.track.tracker import Tracker as Tracker
