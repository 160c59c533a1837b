"""A researcher's desk: the launcher in one hand, and in the other the cluster behind it, which the test plays."""

import contextlib
import io
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

from ray_jobs import launch
from tests.k8s.api_server import ApiServer
from tests.k8s.kubelet import Kubelet
from tests.k8s.kuberay import PlayedJob, await_job

TRAIN = ["train", "varnet_mosaic_x8", "data.catalog=s3://lab/mosaic", "workers=4"]


class Screen(io.StringIO):
    """What a person sees, and what a test may wait for."""

    def __init__(self) -> None:
        super().__init__()
        self._written = threading.Condition()

    def write(self, text: str) -> int:
        with self._written:
            self._written.notify_all()
            return super().write(text)

    def await_text(self, text: str, seconds: float = 20) -> None:
        with self._written:
            assert self._written.wait_for(lambda: text in self.getvalue(), seconds), f"never said {text!r}, only:\n{self.getvalue()}"


class Desk:
    """A researcher's desk: the launcher in one hand, and the test playing the cluster behind it."""

    def __init__(self, server: ApiServer, kubelet: Kubelet, namespace: str, rights: list[dict], screen: Screen, output: Screen) -> None:
        self.server, self.kubelet, self.namespace, self.screen, self.output = server, kubelet, namespace, screen, output
        self.said: list[PlayedJob] = []
        self._rights = rights

    def permit(self) -> None:
        """Give researchers what the chart gives them."""
        for document in self._rights:
            path = f"/apis/{document['apiVersion']}/namespaces/{self.namespace}/{document['kind'].lower()}s"
            self.server.request("POST", path, {**document, "metadata": {"name": document["metadata"]["name"]}})

    def offer(self, template: dict) -> None:
        """Do what the chart does, in small: publish a template, and let researchers use it."""
        self.permit()
        template["metadata"]["namespace"] = self.namespace
        self.server.request("POST", f"/api/v1/namespaces/{self.namespace}/configmaps", template)

    def run(self, *words: str, play: Callable[[PlayedJob], None] | None = None) -> int:
        """Launch, while another thread plays the cluster; a play that goes wrong ends the job."""

        def played() -> None:
            job = await_job(self.server, self.kubelet, self.namespace)
            self.said.append(job)
            try:
                play(job)
            except BaseException:
                job.delete()
                raise

        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(played) if play is not None else None
            with contextlib.redirect_stdout(self.output), contextlib.redirect_stderr(self.screen):
                code = launch.main([*words, "--namespace", self.namespace])
            if future is not None:
                future.result(timeout=30)
        return code

    def job(self, name: str) -> PlayedJob:
        """Return a job as its operator has it."""
        path = f"/apis/ray.io/v1/namespaces/{self.namespace}/rayjobs/{name}"
        return PlayedJob(self.server, self.kubelet, self.namespace, self.server.request("GET", path))

    def job_is_there(self, name: str) -> bool:
        """Whether there is a job of this name."""
        path = f"/apis/ray.io/v1/namespaces/{self.namespace}/rayjobs"
        return name in [job["metadata"]["name"] for job in self.server.request("GET", path)["items"]]

    def selected(self, service: str) -> list[str]:
        """Return the pods that a Service leads to."""
        core = f"/api/v1/namespaces/{self.namespace}"
        selector = self.server.request("GET", f"{core}/services/{service}")["spec"]["selector"]
        wanted = quote(",".join(f"{key}={value}" for key, value in selector.items()))
        return [pod["metadata"]["name"] for pod in self.server.request("GET", f"{core}/pods?labelSelector={wanted}")["items"]]

    @property
    def lines(self) -> list[str]:
        """The output of the command."""
        return self.output.getvalue().splitlines()


def make_queue(desk: Desk, name: str) -> None:
    """Make a LocalQueue."""
    queue = {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "LocalQueue", "metadata": {"name": name}, "spec": {"clusterQueue": "research"}}
    desk.server.request("POST", f"/apis/kueue.x-k8s.io/v1beta2/namespaces/{desk.namespace}/localqueues", queue)


def begin(desk: Desk, job: PlayedJob) -> None:
    """Play until the command prints."""
    job.initialize()
    job.make_pods()
    job.make_ready()
    job.submit()
    job.say("starting: 1,000 parameters, 4 worker(s) on cuda, 3 epochs of 2 steps")
    desk.output.await_text("starting: 1,000")


def begin_quietly(job: PlayedJob) -> None:
    job.initialize()
    job.make_pods()
    job.make_ready()
    job.submit()


def cancel(desk: Desk, job: PlayedJob) -> None:
    """Cancel a job while another launcher follows it."""
    desk.screen.await_text("running")
    job.end_submitter()
    assert launch.main(["cancel", job.name, "--namespace", desk.namespace]) == 0
