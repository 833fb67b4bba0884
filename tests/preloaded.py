"""What a process has at hand from which others are forked: the imports of commands and of stages that do not train, and code."""

import gc
import importlib
import pkgutil

import captcha_registry.commands
from captcha_registry.dataset.spec import DatasetSpec
from captcha_registry.generation.drawing import Drawer
from captcha_registry.generation.generating import describe_tools

COMMANDS = [f"commands.{module.name}" for module in pkgutil.iter_modules(captcha_registry.commands.__path__)]
OURS = ("describing.statistics", "generation.legibility", "generation.remote", "seeing.plots", *COMMANDS)
# What is imported in the middle of a command, and what servers import.
LATER = ("dvc.cachemgr", "dvc.lock", "networkx", "pandas", "pyarrow.dataset")
SERVERS = ("distributed.cli.dask_scheduler", "distributed.cli.dask_worker")

for _name in (*(f"captcha_registry.{name}" for name in OURS), *LATER, *SERVERS):
    importlib.import_module(_name)
Drawer(DatasetSpec(alphabet="01", length=1, width=32, height=32, count=1, shard_size=1, seed=1)).draw(0)
describe_tools()
# Else each process would look through all of this at its end, which takes most of a second.
gc.freeze()
