"""Public names of `umx_np`: imported lazily, and seen by type checkers."""

from . import audio as audio
from . import catalog as catalog
from . import data as data
from . import errors as errors
from . import evaluation as evaluation
from . import export as export
from . import nn as nn
from . import optim as optim
from . import plots as plots
from . import pretrained as pretrained
from . import testing as testing
from . import training as training
from . import weights as weights
from .dsp.stft import istft as istft
from .dsp.stft import stft as stft
from .dsp.wiener import expectation_maximization as expectation_maximization
from .dsp.wiener import wiener as wiener
from .errors import UmxError as UmxError
from .network.openunmix import OpenUnmix as OpenUnmix
from .pretrained.loading import load_model as load_model
from .separation.arrays import separate as separate
from .separation.files import separate_file as separate_file
from .separation.models import umx as umx
from .separation.models import umx_spec as umx_spec
from .separation.models import umxhq as umxhq
from .separation.models import umxhq_spec as umxhq_spec
from .separation.models import umxl as umxl
from .separation.models import umxl_spec as umxl_spec
from .separation.models import umxm as umxm
from .separation.models import umxm_spec as umxm_spec
from .separation.models import umxse as umxse
from .separation.models import umxse_spec as umxse_spec
from .separation.separator import Separator as Separator

__version__: str
