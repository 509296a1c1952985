# mypy: disable-error-code="type-arg"
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Request(_message.Message):
    __slots__ = ("number", "open", "add_session", "add_regions", "finished", "progress", "release", "abort", "serve_criu", "set_pace", "attach")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    ADD_SESSION_FIELD_NUMBER: _ClassVar[int]
    ADD_REGIONS_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    ABORT_FIELD_NUMBER: _ClassVar[int]
    SERVE_CRIU_FIELD_NUMBER: _ClassVar[int]
    SET_PACE_FIELD_NUMBER: _ClassVar[int]
    ATTACH_FIELD_NUMBER: _ClassVar[int]
    number: int
    open: Open
    add_session: AddSession
    add_regions: AddRegions
    finished: Finished
    progress: Progress
    release: Release
    abort: Abort
    serve_criu: ServeCriu
    set_pace: SetPace
    attach: Attach
    def __init__(self, number: _Optional[int] = ..., open: _Optional[_Union[Open, _Mapping]] = ..., add_session: _Optional[_Union[AddSession, _Mapping]] = ..., add_regions: _Optional[_Union[AddRegions, _Mapping]] = ..., finished: _Optional[_Union[Finished, _Mapping]] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., release: _Optional[_Union[Release, _Mapping]] = ..., abort: _Optional[_Union[Abort, _Mapping]] = ..., serve_criu: _Optional[_Union[ServeCriu, _Mapping]] = ..., set_pace: _Optional[_Union[SetPace, _Mapping]] = ..., attach: _Optional[_Union[Attach, _Mapping]] = ...) -> None: ...

class Open(_message.Message):
    __slots__ = ("version", "name", "images", "pace")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    PACE_FIELD_NUMBER: _ClassVar[int]
    version: int
    name: str
    images: bool
    pace: Pace
    def __init__(self, version: _Optional[int] = ..., name: _Optional[str] = ..., images: bool = ..., pace: _Optional[_Union[Pace, _Mapping]] = ...) -> None: ...

class Pace(_message.Message):
    __slots__ = ("kind", "rate")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        EAGER: _ClassVar[Pace.Kind]
        PACED: _ClassVar[Pace.Kind]
        LAZY: _ClassVar[Pace.Kind]
    EAGER: Pace.Kind
    PACED: Pace.Kind
    LAZY: Pace.Kind
    KIND_FIELD_NUMBER: _ClassVar[int]
    RATE_FIELD_NUMBER: _ClassVar[int]
    kind: Pace.Kind
    rate: int
    def __init__(self, kind: _Optional[_Union[Pace.Kind, str]] = ..., rate: _Optional[int] = ...) -> None: ...

class AddSession(_message.Message):
    __slots__ = ("regions", "more", "image_pid", "pidfd", "never_forks", "never_changes_mappings", "channel")
    REGIONS_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    IMAGE_PID_FIELD_NUMBER: _ClassVar[int]
    PIDFD_FIELD_NUMBER: _ClassVar[int]
    NEVER_FORKS_FIELD_NUMBER: _ClassVar[int]
    NEVER_CHANGES_MAPPINGS_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    regions: _containers.RepeatedCompositeFieldContainer[Region]
    more: bool
    image_pid: int
    pidfd: bool
    never_forks: bool
    never_changes_mappings: bool
    channel: bool
    def __init__(self, regions: _Optional[_Iterable[_Union[Region, _Mapping]]] = ..., more: bool = ..., image_pid: _Optional[int] = ..., pidfd: bool = ..., never_forks: bool = ..., never_changes_mappings: bool = ..., channel: bool = ...) -> None: ...

class Region(_message.Message):
    __slots__ = ("start", "nr_pages", "offset", "source")
    START_FIELD_NUMBER: _ClassVar[int]
    NR_PAGES_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    start: int
    nr_pages: int
    offset: int
    source: int
    def __init__(self, start: _Optional[int] = ..., nr_pages: _Optional[int] = ..., offset: _Optional[int] = ..., source: _Optional[int] = ...) -> None: ...

class AddRegions(_message.Message):
    __slots__ = ("regions", "more")
    REGIONS_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    regions: _containers.RepeatedCompositeFieldContainer[Region]
    more: bool
    def __init__(self, regions: _Optional[_Iterable[_Union[Region, _Mapping]]] = ..., more: bool = ...) -> None: ...

class Finished(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Progress(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Release(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Abort(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SetPace(_message.Message):
    __slots__ = ("pace",)
    PACE_FIELD_NUMBER: _ClassVar[int]
    pace: Pace
    def __init__(self, pace: _Optional[_Union[Pace, _Mapping]] = ...) -> None: ...

class Attach(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: int
    def __init__(self, id: _Optional[int] = ...) -> None: ...

class ServeCriu(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Answer(_message.Message):
    __slots__ = ("accepted", "refused", "restore", "state", "id", "number")
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    RESTORE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    accepted: bool
    refused: _containers.RepeatedScalarFieldContainer[str]
    restore: str
    state: State
    id: int
    number: int
    def __init__(self, accepted: bool = ..., refused: _Optional[_Iterable[str]] = ..., restore: _Optional[str] = ..., state: _Optional[_Union[State, _Mapping]] = ..., id: _Optional[int] = ..., number: _Optional[int] = ...) -> None: ...

class State(_message.Message):
    __slots__ = ("ended", "nr_sessions", "nr_live", "nr_pages", "nr_missing")
    ENDED_FIELD_NUMBER: _ClassVar[int]
    NR_SESSIONS_FIELD_NUMBER: _ClassVar[int]
    NR_LIVE_FIELD_NUMBER: _ClassVar[int]
    NR_PAGES_FIELD_NUMBER: _ClassVar[int]
    NR_MISSING_FIELD_NUMBER: _ClassVar[int]
    ended: bool
    nr_sessions: int
    nr_live: int
    nr_pages: int
    nr_missing: int
    def __init__(self, ended: bool = ..., nr_sessions: _Optional[int] = ..., nr_live: _Optional[int] = ..., nr_pages: _Optional[int] = ..., nr_missing: _Optional[int] = ...) -> None: ...
