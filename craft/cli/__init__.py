"""The command line. Importing it costs neither torch nor wandb."""

from craft.cli.entry import entry as entry
from craft.cli.experiment import main as main
