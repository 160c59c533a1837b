"""Several ranks on this machine: processes forked by a server that has imported torch once for all of them."""

import functools
import os
import socket
import sys
from multiprocessing import forkserver
from unittest import mock

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from echotrain.ranks import Ranks


@functools.cache
def _start_server():
    """Start the server of processes once; where to look for what it imports, it takes from the environment alone."""
    forkserver.set_forkserver_preload(["toys"])
    with mock.patch.dict(os.environ, {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}):
        forkserver.ensure_running()


def run_ranks(main, world, *args):
    """Call ``main(ranks, *args)`` on each rank of a gloo group; it must be a function of a module."""
    _start_server()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.start_processes(_rank, args=(main, world, port, args), nprocs=world, start_method="forkserver")


def _rank(rank, main, world, port, args):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    main(Ranks.of_process_group(torch.device("cpu")), *args)
    dist.destroy_process_group()
