"""What dlma needs of Hydra beyond its public interface: the one place to look at when Hydra is upgraded.

Hydra 1.3: the loader composes without a run, the parser knows the command line's own flags, the search path is a list.
"""

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path, get_args_parser

__all__ = ["ConfigLoaderImpl", "Hydra", "create_config_search_path", "get_args_parser"]
