"""URLs of studies, series and instances, and what a request asks for."""

from starlette.requests import Request

from imaging_services.domain.dicom.uids import is_uid
from imaging_services.domain.errors import InvalidInput
from imaging_services.domain.manifest.query import InstanceLocation, Scope


def base_url(request: Request, external_endpoint: str | None) -> str:
    """What resource URLs begin with: the endpoint known to clients, else where the request came to."""
    if external_endpoint:
        return external_endpoint.rstrip("/")
    root: str = request.scope.get("root_path", "")
    return f"{request.url.scheme}://{request.url.netloc}{root}"


def instance_url(base: str, location: InstanceLocation) -> str:
    """URL of an instance."""
    return (
        f"{base}/studies/{location.study_instance_uid}/series/{location.series_instance_uid}"
        f"/instances/{location.sop_instance_uid}"
    )


def scope_of(request: Request, provider: str) -> Scope:
    """The study, series or instance of the request's path, within the provider. Raises ``InvalidInput``."""
    names = ("study", "series", "instance")
    uids = [request.path_params.get(name) for name in names]
    for name, uid in zip(names, uids, strict=True):
        if uid is not None and not is_uid(uid):
            raise InvalidInput(f"the {name} of the path is not a UID: up to 64 digits and dots")
    study, series, instance = uids
    return Scope(study or "", series, instance, provider)
