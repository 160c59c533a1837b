"""What the tests of this folder share."""

from tests.local_cluster import catalog_uri, experiment, kept, local_ray, whole

__all__ = ["catalog_uri", "experiment", "kept", "local_ray", "whole"]
