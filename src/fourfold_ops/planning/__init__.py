"""What a run would do, found without importing the libraries of its stages: `kedro plan` and `kedro run --only-changed`.

`layout` reads the stages from dvc.yaml, `records` what each stage was last made from, `changes` compares that with now, `plan`
decides, `checks` finds what would make the run fail, `text` prints it.
"""
