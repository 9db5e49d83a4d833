"""What stands for the work of a step in a simulated execution, where nothing outside is touched."""

from domain.json_values import Json, JsonObject


def simulated_output(action: str, config: Json) -> JsonObject:
    """The output of a step that was not performed: what would have been done, with what.

    Its members are those of older systems: the step's conditions were met, or it would be skipped.
    """
    return {
        "simulated": True,
        "wouldExecute": action,
        "config": config,
        "conditionsMet": True,
    }


def is_simulated(output: Json) -> bool:
    """Whether this is the output of a step that was not performed."""
    return isinstance(output, dict) and output.get("simulated") is True and "wouldExecute" in output
