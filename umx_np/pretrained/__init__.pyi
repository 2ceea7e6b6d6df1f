"""Public names of `umx_np.pretrained`: imported lazily, and seen by type checkers."""

from .folders import bundled_folder as bundled_folder
from .folders import cache_dir as cache_dir
from .loading import DownloadProgress as DownloadProgress
from .loading import download as download
from .loading import load_model as load_model
from .models import ModelInfo as ModelInfo
from .models import PublishedFile as PublishedFile
from .models import default_model as default_model
from .models import default_notice as default_notice
from .models import get_model_info as get_model_info
from .models import model_names as model_names
from .models import registry as registry
