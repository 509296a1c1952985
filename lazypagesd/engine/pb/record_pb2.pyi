# mypy: disable-error-code="type-arg"
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Daemon(_message.Message):
    __slots__ = ("listener", "images", "admin")
    LISTENER_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    ADMIN_FIELD_NUMBER: _ClassVar[int]
    listener: int
    images: int
    admin: int
    def __init__(self, listener: _Optional[int] = ..., images: _Optional[int] = ..., admin: _Optional[int] = ...) -> None: ...

class Session(_message.Message):
    __slots__ = ("restore", "name", "fd", "pidfd", "sources", "image_pid", "id")
    RESTORE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    FD_FIELD_NUMBER: _ClassVar[int]
    PIDFD_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    IMAGE_PID_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    restore: int
    name: str
    fd: int
    pidfd: int
    sources: _containers.RepeatedCompositeFieldContainer[Source]
    image_pid: int
    id: int
    def __init__(self, restore: _Optional[int] = ..., name: _Optional[str] = ..., fd: _Optional[int] = ..., pidfd: _Optional[int] = ..., sources: _Optional[_Iterable[_Union[Source, _Mapping]]] = ..., image_pid: _Optional[int] = ..., id: _Optional[int] = ...) -> None: ...

class Source(_message.Message):
    __slots__ = ("fd", "kind", "size", "name")
    FD_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    fd: int
    kind: int
    size: int
    name: str
    def __init__(self, fd: _Optional[int] = ..., kind: _Optional[int] = ..., size: _Optional[int] = ..., name: _Optional[str] = ...) -> None: ...

class Restore(_message.Message):
    __slots__ = ("number", "name", "owner", "pace", "released", "connection", "native", "criu_connection", "criu", "paused", "began_usec")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    PACE_FIELD_NUMBER: _ClassVar[int]
    RELEASED_FIELD_NUMBER: _ClassVar[int]
    CONNECTION_FIELD_NUMBER: _ClassVar[int]
    NATIVE_FIELD_NUMBER: _ClassVar[int]
    CRIU_CONNECTION_FIELD_NUMBER: _ClassVar[int]
    CRIU_FIELD_NUMBER: _ClassVar[int]
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    BEGAN_USEC_FIELD_NUMBER: _ClassVar[int]
    number: int
    name: str
    owner: int
    pace: int
    released: bool
    connection: int
    native: Native
    criu_connection: int
    criu: Criu
    paused: bool
    began_usec: int
    def __init__(self, number: _Optional[int] = ..., name: _Optional[str] = ..., owner: _Optional[int] = ..., pace: _Optional[int] = ..., released: bool = ..., connection: _Optional[int] = ..., native: _Optional[_Union[Native, _Mapping]] = ..., criu_connection: _Optional[int] = ..., criu: _Optional[_Union[Criu, _Mapping]] = ..., paused: bool = ..., began_usec: _Optional[int] = ...) -> None: ...

class Criu(_message.Message):
    __slots__ = ("images", "done", "pid")
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    images: int
    done: _containers.RepeatedScalarFieldContainer[int]
    pid: int
    def __init__(self, images: _Optional[int] = ..., done: _Optional[_Iterable[int]] = ..., pid: _Optional[int] = ...) -> None: ...

class Native(_message.Message):
    __slots__ = ("images", "nr_done", "answer", "pending", "nr_sessions", "nr_regions", "listener")
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    NR_DONE_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    PENDING_FIELD_NUMBER: _ClassVar[int]
    NR_SESSIONS_FIELD_NUMBER: _ClassVar[int]
    NR_REGIONS_FIELD_NUMBER: _ClassVar[int]
    LISTENER_FIELD_NUMBER: _ClassVar[int]
    images: int
    nr_done: int
    answer: bytes
    pending: int
    nr_sessions: int
    nr_regions: int
    listener: int
    def __init__(self, images: _Optional[int] = ..., nr_done: _Optional[int] = ..., answer: _Optional[bytes] = ..., pending: _Optional[int] = ..., nr_sessions: _Optional[int] = ..., nr_regions: _Optional[int] = ..., listener: _Optional[int] = ...) -> None: ...
