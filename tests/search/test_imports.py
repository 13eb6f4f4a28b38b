import subprocess
import sys

CODE = """
import sys
import stg_tune.search
from stg_tune.search import load_space, space_names
assert not {"torch", "optuna", "sqlalchemy", "scipy"} & set(sys.modules), "too much for --help"
import stg_tune.preset
import stg_tune.search.driver
assert not {"torch", "diffusers", "transformers", "ray", "plotly", "pandas"} & set(sys.modules)
"""


def test_search_and_preset_need_no_torch_and_the_names_need_no_optuna():
    subprocess.run([sys.executable, "-c", CODE], check=True)
