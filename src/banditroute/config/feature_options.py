"""What a configuration file may say of features: maps that may hold other maps."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Union

from pydantic import Field

from banditroute.config.options import Options, options_of
from banditroute.features import Category, Embedding, Features, Fields, Fourier, HashedText, Number

__all__ = ["FEATURES", "FeaturesOptions", "features_of"]

FEATURES: dict[str, type[Features]] = {
    kind.__name__: kind for kind in (Category, Embedding, Fields, Fourier, HashedText, Number)
}

TextOptions, NumberOptions, CategoryOptions = (options_of(kind) for kind in (HashedText, Number, Category))


class EmbeddingOptions(options_of(Embedding)):  # type: ignore[misc]
    """Vectors of an encoder: another map, or a name that the caller of `from_config` has an encoder for."""

    kind: Literal["Embedding"]
    encoder: "FeaturesOptions | str | None" = None


class FourierOptions(options_of(Fourier)):  # type: ignore[misc]
    """Waves over another map."""

    kind: Literal["Fourier"]
    of: "FeaturesOptions"


class FieldsOptions(Options):
    """Named values, a map for each."""

    kind: Literal["Fields"]
    parts: "dict[str, FeaturesOptions]"


Known = Union[  # noqa: UP007
    TextOptions, NumberOptions, CategoryOptions, EmbeddingOptions, FourierOptions, FieldsOptions  # type: ignore[valid-type]
]
FeaturesOptions = Annotated[Known, Field(discriminator="kind")]
for model in (EmbeddingOptions, FourierOptions, FieldsOptions):
    model.model_rebuild()


def features_of(options: Any, encoders: Mapping[str, Callable[..., Any]] | None) -> Features:
    """Return the map that checked options describe.

    Parameters
    ----------
    options : Options
    encoders : mapping of str to callable, optional
        Encoders by the names that the file gives them; None stands in something that is never called.

    Examples
    --------
    >>> features_of(TextOptions(kind="HashedText", dim=16), {})
    HashedText(dim=16, ngrams=[3, 4], lower=True, seed=0)
    """
    given = {key: getattr(options, key) for key in options.model_fields_set if key != "kind"}
    if isinstance(given.get("of"), Options):
        given["of"] = features_of(given["of"], encoders)
    if "parts" in given:
        given["parts"] = {name: features_of(part, encoders) for name, part in given["parts"].items()}
    encoder = given.get("encoder")
    if isinstance(encoder, Options):
        given["encoder"] = features_of(encoder, encoders)
    elif isinstance(encoder, str):
        if encoders is not None and encoder not in encoders:
            raise ValueError(
                f"encoder must be one that from_config was given, {sorted(encoders)}, got {encoder!r}"
            )
        given["encoder"] = print if encoders is None else encoders[encoder]
        given.setdefault("name", encoder)
    return FEATURES[options.kind](**given)
