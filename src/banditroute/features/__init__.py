"""A raw request, text, table or embedding, becomes a context of a good scale."""

from banditroute.features.base import Features
from banditroute.features.embeddings import Embedding
from banditroute.features.fourier import Fourier
from banditroute.features.tables import Category, Fields, Number
from banditroute.features.text import HashedText

__all__ = ["Category", "Embedding", "Features", "Fields", "Fourier", "HashedText", "Number"]
