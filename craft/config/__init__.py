"""Configurations: attrs values to plain data (JSON, TOML) and back, strictly, with every problem told at once.

An attrs value that stands where its annotation alone would not tell its class (a union, a base class) carries
`kind: ClassName`. A field that is made by `tunable` may change without a new program.
"""

from craft.config.change import change as change
from craft.config.change import parse_value as parse_value
from craft.config.compare import ABSENT as ABSENT
from craft.config.compare import diff as diff
from craft.config.compare import digest as digest
from craft.config.compare import flatten as flatten
from craft.config.convert import from_dict as from_dict
from craft.config.convert import to_dict as to_dict
from craft.config.errors import ConfigError as ConfigError
from craft.config.fields import at_least as at_least
from craft.config.fields import choice as choice
from craft.config.fields import finite_positive as finite_positive
from craft.config.fields import fraction as fraction
from craft.config.fields import positive as positive
from craft.config.fields import tunable as tunable
from craft.config.fields import tunables as tunables
from craft.config.file import LARGE as LARGE
from craft.config.file import load as load
from craft.config.words import nearest as nearest
