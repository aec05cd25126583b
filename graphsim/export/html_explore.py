"""The explore page of a report's deployment, embedded in the report and opened by a button."""

from __future__ import annotations

from graphsim.deployment.scenarios import scenarios_in, take
from graphsim.errors import GraphsimError
from graphsim.export.explore.page import explore
from graphsim.export.html_page import escaped, json_text
from graphsim.result import Estimate

_SECTION = """<section class="wide"><h2>What if?</h2>
<p class="hint">The same deployment as formulas: batch, lengths, adapters and the device's rates as sliders.</p>
<button type="button" id="explore">Explore this deployment</button>
<script type="application/json" id="explore-page">{page}</script></section>"""


def explore_section(estimate: Estimate, scenario: int) -> str:
    """Markup with the page of `gs.explore` for the estimate's device, degree and adapter, or why there is none."""
    inference = estimate.inference
    if inference is None or estimate.settings.get("speculation"):
        return ""
    if scenarios_in(inference.deployment, inference.requests, inference.hardware) is not None:
        inference = take(inference, scenario)
    deployment, requests = inference.deployment, inference.requests
    try:
        page = explore(
            deployment, batch=requests.batch, input_tokens=requests.input_tokens, output_tokens=requests.output_tokens,
            devices=[deployment.device], degrees=[int(deployment.parallelism.tp)],
        )  # fmt: skip
    except GraphsimError as error:
        told = f"This deployment cannot be explored: {error}"
        return f'<section class="wide"><h2>What if?</h2><p class="hint">{escaped(told)}</p></section>'
    return _SECTION.format(page=json_text(page))
