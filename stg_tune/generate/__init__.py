"""(pipeline, specification, pair) -> video."""

from stg_tune.generate.films import Films as Films
from stg_tune.generate.generator import Generated as Generated
from stg_tune.generate.generator import GenerationFailedError as GenerationFailedError
from stg_tune.generate.generator import Generator as Generator
from stg_tune.generate.previews import Previews as Previews
