"""The engine: devices, precision, threads, memory and compiled programs."""

from craft.engine.allocator import keep_memory as keep_memory
from craft.engine.allocator import peak_megabytes as peak_megabytes
from craft.engine.allocator import resident_bytes as resident_bytes
from craft.engine.core import Engine as Engine
from craft.engine.core import start as start
from craft.engine.device import resolve_device as resolve_device
from craft.engine.memory import Choice as Choice
from craft.engine.memory import choose_memory as choose_memory
from craft.engine.memory import is_out_of_memory as is_out_of_memory
from craft.engine.program import Program as Program
from craft.engine.program import compile_function as compile_function
from craft.engine.program import compile_step as compile_step
from craft.engine.program import compiler_missing as compiler_missing
from craft.engine.program import program_key as program_key
