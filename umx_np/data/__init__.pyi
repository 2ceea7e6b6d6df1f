"""Public names of `umx_np.data`: what is imported lazily, and what type checkers see."""

from .aligned import AlignedDataset as AlignedDataset
from .augmentations import Compose as Compose
from .augmentations import aug_from_str as aug_from_str
from .augmentations import channelswap as channelswap
from .augmentations import force_stereo as force_stereo
from .augmentations import gain as gain
from .augmentations import polarity as polarity
from .augmentations import tilt as tilt
from .augmentations import width as width
from .base import UnmixDataset as UnmixDataset
from .base import item_rng as item_rng
from .batches import DataError as DataError
from .factory import load_datasets as load_datasets
from .loader import Loader as Loader
from .musdb18 import MUSDBDataset as MUSDBDataset
from .options import DATASETS as DATASETS
from .options import add_dataset_options as add_dataset_options
from .options import parse_dataset_options as parse_dataset_options
from .sourcefolder import SourceFolderDataset as SourceFolderDataset
from .statistics import get_statistics as get_statistics
from .stems import StemsDataset as StemsDataset
from .trackfolder import FixedSourcesTrackFolderDataset as FixedSourcesTrackFolderDataset
from .trackfolder_var import VariableSourcesTrackFolderDataset as VariableSourcesTrackFolderDataset
