"""From scans to a page as a Kubeflow pipeline: every step asks the cluster for a RayJob and waits for it.

Run by ``k8s/pipelines/compile``, with the image and the file to write.
"""

import sys

from kfp import compiler, dsl
from kfp.dsl.base_component import BaseComponent

# The words of a command come as one parameter. They are split, and nothing in them is run or expanded.
SPLIT = 'set -f; exec python -m ray_jobs.launch --namespace "$1" $2'


def describe(image: str) -> BaseComponent:
    """Return the pipeline, whose steps run in this image."""

    @dsl.container_component
    def launch(namespace: str, command: str) -> dsl.ContainerSpec:
        return dsl.ContainerSpec(image=image, command=["sh", "-ec", SPLIT, "launch"], args=[namespace, command])

    def step(name: str, namespace: str, command: str) -> dsl.PipelineTask:
        task = launch(namespace=namespace, command=command).set_display_name(name)
        # The same command goes on with what it left: no answer of an earlier run stands for it.
        task.set_caching_options(False)
        return task.set_cpu_request("100m").set_memory_request("1Gi").set_memory_limit("2Gi")

    @dsl.pipeline(name="echotrain", description="prepare -> train or sweep -> evaluate -> report, each a RayJob of ray_jobs.launch")
    def echotrain(
        scans: str = "s3://echotrain/scans",
        catalog: str = "s3://echotrain/prepared",
        storage: str = "s3://echotrain/runs",
        name: str = "pipeline",
        experiment: str = "sweep sweeps/mosaic_scaling_debug.yaml",
        settings: str = "",
        options: str = "",
        namespace: str = "echotrain",
    ) -> None:
        """Prepare scans, train or sweep on them, evaluate the (best) model, and write STORAGE/NAME/report.html.

        Args:
            scans: Folder of scanner files.
            catalog: Where they are prepared.
            storage: Where runs are kept.
            name: Of the run or the sweep: the folder in storage.
            experiment: ``train RECIPE`` or ``sweep FILE``, whose file is in the image.
            settings: ``dotted.path=value`` of the experiment, by spaces.
            options: Of the launcher, for every step: ``--queue …``, ``--priority …``.
            namespace: Where the chart is installed.
        """
        prepare = step("prepare", namespace, f"prepare {scans} --to {catalog} {options}")
        trained = step(
            "train or sweep", namespace, f"{experiment} data.catalog={catalog} storage={storage} name={name} {settings} {options}"
        )
        evaluate = step("evaluate", namespace, f"evaluate {storage}/{name} {options}")
        report = step("report", namespace, f"report {storage}/{name} --out {storage}/{name}/report.html {options}")
        trained.after(prepare)
        evaluate.after(trained)
        report.after(evaluate)

    return echotrain


if __name__ == "__main__":
    image, target = sys.argv[1:]
    compiler.Compiler().compile(describe(image), target)
    print(target)
