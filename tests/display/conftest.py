"""The exporters' graphs and estimates serve here too."""

from tests.export.conftest import estimates as estimates
from tests.export.conftest import graphs as graphs
