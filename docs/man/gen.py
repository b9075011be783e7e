import re,os
inc='/work/main/include/spoke/'
def head(t,s): return f'.\\" SPDX-License-Identifier: MIT\n.Dd November 21, 2026\n.Dt {t} {s}\n.Os spoke 0.1\n'
def w(name,text):
    open(name,'w').write(text)
errs=re.findall(r'ERROR\((\w+), (\d+), "([^"]*)"\)',open(inc+'errors.def').read())
w('spoke_error.3',head('SPOKE_ERROR','3')+r'''.Sh NAME
.Nm spoke_error ,
.Nm spoke_strerror ,
.Nm spoke_error_name ,
.Nm spoke_set_log
.Nd errors of spoke, and its log
.Sh LIBRARY
libspoke, \-lspoke
.Sh SYNOPSIS
.In spoke/error.h
.Ft const char *
.Fn spoke_strerror "int error"
.Ft const char *
.Fn spoke_error_name "int error"
.Ft typedef void
.Fn spoke_log_f "void *ctx" "enum spoke_log_level level" "const char *text"
.Ft void
.Fn spoke_set_log "spoke_log_f *fn" "void *ctx" "enum spoke_log_level level"
.Sh DESCRIPTION
Every call of the library that can fail returns 0, or a number that is not negative, when it succeeds, and one of the
negative numbers below when it does not.
One code has one meaning; numbers never change.
.Va errno
is not used.
A call that fails changes nothing, unless its page says otherwise.
.Pp
.Fn spoke_strerror
gives the text of an error, without a full stop, and
.Fn spoke_error_name
its name, such as
.Dq SPOKE_EADDRINUSE .
Both give constant text, never
.Dv NULL ,
and
.Dq unknown error
for a number that is no error.
.Pp
The library prints nothing.
.Fn spoke_set_log
sends what it has to say to
.Fa fn :
one sentence about what happened, to whom, and, where there is something to do, what to change.
It gets everything up to
.Fa level :
.Dv SPOKE_LOG_ERROR , SPOKE_LOG_WARNING , SPOKE_LOG_INFO
or
.Dv SPOKE_LOG_DEBUG .
.Dv NULL
is nowhere, the default.
.Fa fn
may be called from any thread, several at once, and must not call the library.
.Ss Errors
'''+'.Bl -tag -width "SPOKE_EADDRNOTAVAIL"\n'+''.join(f'.It Dv SPOKE_{n} No (\\-{v})\n{t}\n' for n,v,t in errs)+r'''.El
.Sh EXAMPLES
.Bd -literal -offset indent
static void
on_log(void *ctx, enum spoke_log_level level, const char *text)
{
    (void)ctx;
    syslog(level == SPOKE_LOG_ERROR ? LOG_ERR : LOG_INFO, "%s", text);
}
\&...
spoke_set_log(on_log, NULL, SPOKE_LOG_INFO);
if ((rc = spoke_listen(s, url, NULL, 0)) != 0)
    fprintf(stderr, "cannot listen on %s: %s\en", url, spoke_strerror(rc));
.Ed
.Sh SEE ALSO
.Xr spoke_socket 3 ,
.Xr spoke 7
''')

LIB='.Sh LIBRARY\nlibspoke, \\-lspoke\n'
OPT="""RAW|raw|bool, false|socket, before the first dial or listen|the protocol's words are the message's header and no state is kept|RAW, AF_SP_RAW
RECV_TIMEOUT|recv-timeout|duration, forever|socket|how long a receive waits; 0: not at all|RECV-DEADLINE, NN_RCVTIMEO
SEND_TIMEOUT|send-timeout|duration, forever|socket|how long a send waits; 0: not at all|SEND-DEADLINE, NN_SNDTIMEO
SEND_EXPIRY|send-expiry|duration, 0: never|socket, not REQ|a message that is not written by then is dropped|
BEST_EFFORT|best-effort|bool, false|socket|a send that would wait drops the message instead|BEST-EFFORT
LINGER|linger|duration, 1 s|socket|how long a close waits for what is queued|LINGER
SEND_QUEUE|send-queue|int, 128 messages|socket, before the first dial or listen|bound of the send queue; 0: only what a pipe takes at once|WRITEQ-LEN
RECV_QUEUE|recv-queue|int, 128 messages|socket, before the first dial or listen|bound of the receive queue|READQ-LEN
SEND_QUEUE_BYTES|send-queue-bytes|size, 8 MiB|socket|the same bound in bytes; one message always fits|
RECV_QUEUE_BYTES|recv-queue-bytes|size, 8 MiB|socket|the same bound in bytes; one message always fits|
MAX_RECV_SIZE|max-recv-size|size, 1 MiB|socket *, dialer, listener|a larger message, header words counted, closes its pipe; 0: no limit but SPOKE_MSG_MAX|MAX-RCV-SIZE, NN_RCVMAXSIZE
RETRY_TIME|retry-time|duration, 60 s|socket (REQ)|a request without a reply is sent again after this time; 0: never|RETRY-TIME, NN_REQ_RESEND_IVL
TTL|ttl|int from 1 to 255, 8|socket (REP)|requests that have come over more hops are dropped|TTL, NN_MAXTTL
RECONNECT|reconnect-time|duration, 100 ms|socket *, dialer|the first wait before dialing again|RECONNECT-TIME
RECONNECT_MAX|reconnect-time-max|duration, 0: no growth|socket *, dialer|the longest wait before dialing again|MAX-RECONNECT-TIME
HANDSHAKE_TIME|handshake-time|duration, 10 s|socket *, dialer, listener|limit for everything between connecting and the first message|
MAX_PIPES|max-pipes|int, 0: no limit|socket|further connections are accepted and closed|
BUSY_POLL|busy-poll|duration, the engine's|socket|SPOKE_WAIT_ADAPTIVE, SPOKE_WAIT_BLOCK, SPOKE_WAIT_POLL, or how long a wait spins before it sleeps|
NAME|name|string of at most 63 bytes|socket|for messages and statistics; at first the protocol and a number|NN_SOCKET_NAME
PROTOCOL|protocol|int|socket, read-only|the protocol's number on the wire|NN_PROTOCOL
PEER|peer|int|socket, read-only|the only number that it talks to|
PROTOCOL_NAME|protocol-name|string|socket, read-only|such as req|
RECV_FD|recv-fd|int|socket, read-only|a descriptor that is readable while a receive would not wait|NN_RCVFD
SEND_FD|send-fd|int|socket, read-only|a descriptor that is readable while a send would not wait|NN_SNDFD
TCP_NODELAY|tcp-nodelay|bool, true|socket *, dialer, listener (tcp)|small messages leave at once|NO-DELAY, NN_TCP_NODELAY
TCP_KEEPALIVE|tcp-keepalive|bool, true|socket *, dialer, listener (tcp)|the kernel looks after silent connections|KEEPALIVE
IPC_MODE|ipc-mode|int from 0 to 0777, -1: the umask decides|socket *, listener (ipc)|mode bits of the socket file|UNIX-IPC-CHMOD
URL|url|string|dialer, listener, pipe; read-only|the URL as it was given|
ADDRESS|address|string|listener, read-only|the URL as it was bound, with the port that the kernel chose; it can be dialed|
LOCAL_ADDRESS|local-address|string|pipe, read-only|this end|LOCAL-ADDR
REMOTE_ADDRESS|remote-address|string|pipe, read-only|the other end|REMOTE-ADDR
PEER_PID|peer-pid|int|pipe (ipc), read-only|the peer's process|
PEER_UID|peer-uid|int|pipe (ipc), read-only|the peer's user|
PEER_GID|peer-gid|int|pipe (ipc), read-only|the peer's group|""".split("\n")
names=re.findall(r'#define (SPOKE_OPT_\w+)\s+"([^"]+)"',open(inc+'option.h').read())
assert [(f"SPOKE_OPT_{o.split('|')[0]}",o.split('|')[1]) for o in OPT]==names, set(names)^set((f"SPOKE_OPT_{o.split('|')[0]}",o.split('|')[1]) for o in OPT)
def opt(o):
    n,name,ty,where,what,other=o.split('|')
    t=f'.It Dv SPOKE_OPT_{n} Pq Dq {name}\n{ty[0].upper()+ty[1:]}; {where}.\n{what[0].upper()+what[1:]}.\n'.replace(' -1',' \\-1')
    if other: t+=f'Elsewhere: {other}.\n'
    return t
w('spoke_option.3',head('SPOKE_OPTION','3')+r""".Sh NAME
.Nm spoke_option ,
.Nm spoke_socket_set ,
.Nm spoke_socket_get ,
.Nm spoke_dialer_set ,
.Nm spoke_dialer_get ,
.Nm spoke_listener_set ,
.Nm spoke_listener_get ,
.Nm spoke_pipe_get
.Nd options of sockets, dialers, listeners and pipes
"""+LIB+r""".Sh SYNOPSIS
.In spoke/option.h
.Ft int
.Fn spoke_socket_set "spoke_socket *s" "const char *name" "enum spoke_type type" "const void *value" "size_t size"
.Ft int
.Fn spoke_socket_get "spoke_socket *s" "const char *name" "enum spoke_type type" "void *value" "size_t *size"
.Ft int
.Fn spoke_dialer_set "spoke_dialer *d" "const char *name" "enum spoke_type type" "const void *value" "size_t size"
.Ft int
.Fn spoke_dialer_get "spoke_dialer *d" "const char *name" "enum spoke_type type" "void *value" "size_t *size"
.Ft int
.Fn spoke_listener_set "spoke_listener *l" "const char *name" "enum spoke_type type" "const void *value" "size_t size"
.Ft int
.Fn spoke_listener_get "spoke_listener *l" "const char *name" "enum spoke_type type" "void *value" "size_t *size"
.Ft int
.Fn spoke_pipe_get "spoke_socket *s" "spoke_pipe_id pipe" "const char *name" "enum spoke_type type" "void *value" "size_t *size"
.Sh DESCRIPTION
An option has a name and a type, and both are checked.
The types and what
.Fa value
points to are
.Dv SPOKE_BOOL
.Pq Vt bool ,
.Dv SPOKE_INT
.Pq Vt int ,
.Dv SPOKE_SIZE
.Pq Vt size_t ,
.Dv SPOKE_DURATION
.Pq Vt spoke_ns , No nanoseconds ,
.Dv SPOKE_STRING
.Pq characters ,
.Dv SPOKE_BYTES
and
.Dv SPOKE_POINTER
.Pq Vt "void *" .
.Pp
The
.Fn set
calls copy
.Fa size
bytes.
The
.Fn get
calls write at most
.Fa *size
bytes and set
.Fa *size
to the whole size of the option; strings end with NUL, also when they were cut.
.Pp
Shorter are the typed forms, for
.Ar owner
.Li socket , dialer , listener :
.Fn spoke_ Ns Ar owner Ns Li _set_bool ,
.Li _set_int , _set_size , _set_duration , _set_string
and the same with
.Li _get_ .
.Pp
A socket holds its own options and the defaults that its dialers and listeners start with, marked * below;
each dialer and listener can then differ, before it is started.
.Ss Options
Each has its type and default, whose it is, what it does, and the name that mangos or nanomsg has for it.
.Bl -tag -width indent
"""+''.join(opt(o) for o in OPT)+r""".El
.Sh RETURN VALUES
0, or an error; then nothing has changed.
.Sh ERRORS
.Bl -tag -width "SPOKE_EWRITEONLY"
.It Dv SPOKE_EOPTION
there is no such option here
.It Dv SPOKE_ETYPE
it has another type
.It Dv SPOKE_ERANGE
the value is out of range
.It Dv SPOKE_EREADONLY
it can only be read
.It Dv SPOKE_EWRITEONLY
it can only be set
.It Dv SPOKE_ETOOLATE
it cannot change once the socket has dialed or listened
.It Dv SPOKE_ENOENT
the pipe is gone
.It Dv SPOKE_ECLOSED , SPOKE_EWRONGTHREAD , SPOKE_EFORKED
as for every call:
.Xr spoke_socket 3
.El
.Sh EXAMPLES
.Bd -literal -offset indent
spoke_socket_set_duration(s, SPOKE_OPT_RECV_TIMEOUT, 2 * SPOKE_SECOND);

char address[128];
spoke_listen(s, "tcp://127.0.0.1:0", &l, 0);
spoke_listener_get_string(l, SPOKE_OPT_ADDRESS, address, sizeof address);
.Ed
.Sh SEE ALSO
.Xr spoke_error 3 ,
.Xr spoke_socket 3 ,
.Xr spoke 7
""")
stats=re.findall(r'STAT\((\w+), "([^"]*)"\)',open(inc+'stats.def').read())
w('spoke_socket.3',head('SPOKE_SOCKET','3')+r""".Sh NAME
.Nm spoke_socket ,
.Nm spoke_socket_open ,
.Nm spoke_socket_close ,
.Nm spoke_socket_close_report ,
.Nm spoke_dial ,
.Nm spoke_listen ,
.Nm spoke_dialer_create ,
.Nm spoke_dialer_start ,
.Nm spoke_dialer_close ,
.Nm spoke_listener_create ,
.Nm spoke_listener_start ,
.Nm spoke_listener_close ,
.Nm spoke_send ,
.Nm spoke_recv ,
.Nm spoke_sendv ,
.Nm spoke_recvv ,
.Nm spoke_send_bytes ,
.Nm spoke_recv_bytes ,
.Nm spoke_socket_on_message ,
.Nm spoke_socket_on_writable ,
.Nm spoke_socket_on_event ,
.Nm spoke_pipe_close ,
.Nm spoke_socket_stats
.Nd sockets: connect, listen, send and receive messages
"""+LIB+r""".Sh SYNOPSIS
.In spoke/socket.h
.Ft int
.Fn spoke_socket_open "spoke_socket **out" "int pattern" "spoke_engine *engine"
.Ft int
.Fn spoke_socket_close "spoke_socket *s"
.Ft int
.Fn spoke_socket_close_report "spoke_socket *s" "struct spoke_close_report *report"
.Ft int
.Fn spoke_dial "spoke_socket *s" "const char *url" "spoke_dialer **out" "int flags"
.Ft int
.Fn spoke_listen "spoke_socket *s" "const char *url" "spoke_listener **out" "int flags"
.Ft int
.Fn spoke_dialer_create "spoke_dialer **out" "spoke_socket *s" "const char *url"
.Ft int
.Fn spoke_dialer_start "spoke_dialer *d" "int flags"
.Ft int
.Fn spoke_dialer_close "spoke_dialer *d"
.Ft int
.Fn spoke_listener_create "spoke_listener **out" "spoke_socket *s" "const char *url"
.Ft int
.Fn spoke_listener_start "spoke_listener *l" "int flags"
.Ft int
.Fn spoke_listener_close "spoke_listener *l"
.Ft int
.Fn spoke_send "spoke_socket *s" "spoke_msg *m" "int flags"
.Ft int
.Fn spoke_recv "spoke_socket *s" "spoke_msg **out" "int flags"
.Ft int
.Fn spoke_sendv "spoke_socket *s" "spoke_msg **messages" "int count" "int flags"
.Ft int
.Fn spoke_recvv "spoke_socket *s" "spoke_msg **messages" "int count" "int flags"
.Ft int
.Fn spoke_send_bytes "spoke_socket *s" "const void *data" "size_t size" "int flags"
.Ft int
.Fn spoke_recv_bytes "spoke_socket *s" "void *buffer" "size_t *size" "int flags"
.Ft typedef void
.Fn spoke_message_f "spoke_socket *s" "spoke_msg *m" "void *ctx"
.Ft int
.Fn spoke_socket_on_message "spoke_socket *s" "spoke_message_f *fn" "void *ctx"
.Ft typedef void
.Fn spoke_writable_f "spoke_socket *s" "void *ctx"
.Ft int
.Fn spoke_socket_on_writable "spoke_socket *s" "spoke_writable_f *fn" "void *ctx"
.Ft typedef int
.Fn spoke_event_f "spoke_socket *s" "const struct spoke_event *event" "void *ctx"
.Ft int
.Fn spoke_socket_on_event "spoke_socket *s" "spoke_event_f *fn" "void *ctx"
.Ft int
.Fn spoke_pipe_close "spoke_socket *s" "spoke_pipe_id pipe"
.In spoke/stats.h
.Ft int
.Fn spoke_socket_stats "spoke_socket *s" "struct spoke_stats *out"
.Sh DESCRIPTION
.Ss Opening and closing
.Fn spoke_socket_open
opens a socket for a pattern on
.Fa engine ,
or on the library's shared engine if that is
.Dv NULL .
The patterns are:
.Bl -tag -width "SPOKE_PAIR"
.It Dv SPOKE_PAIR
One peer, messages both ways.
A second one is turned away until the first has gone.
.It Dv SPOKE_REQ
Sends a request to one of its peers, receives the reply to it.
A request is sent again if its connection is lost, and after
.Dv SPOKE_OPT_RETRY_TIME ,
so a replier may see it twice.
A new request takes the place of one that is not answered yet.
A receive without a request gives
.Dv SPOKE_ESTATE .
.It Dv SPOKE_REP
Receives a request, sends the reply to where it came from.
A send without a request gives
.Dv SPOKE_ESTATE ;
a second receive gives the first request up.
.El
.Pp
On the shared engine every call may come from any thread.
On an owned engine every call must come from its owner, else it gives
.Dv SPOKE_EWRONGTHREAD .
After
.Xr fork 2
the parent's handles give
.Dv SPOKE_EFORKED
in the child.
A handle that was closed gives
.Dv SPOKE_ECLOSED .
.Pp
.Fn spoke_socket_close
stops accepting, waits at most
.Dv SPOKE_OPT_LINGER
until all that was sent has been handed to the kernel, lets every waiting call return
.Dv SPOKE_ECLOSED ,
and closes all connections.
It returns 0, or
.Dv SPOKE_ETIMEDOUT
if messages were left; the socket is closed all the same.
.Fn spoke_socket_close_report
also tells how many messages and bytes were left.
.Ss Addresses
.Fn spoke_dial
reaches out to
.Fa url ,
now and again whenever the connection is lost.
It returns at once, and only the URL can be wrong, unless
.Fa flags
is
.Dv SPOKE_WAIT_FIRST :
then it waits for the first attempt and fails with its error.
.Fn spoke_listen
accepts connections on
.Fa url
and returns when the address is bound.
Both give the dialer or listener if
.Fa out
is not
.Dv NULL ;
it lives until it is closed or its socket is.
.Fn spoke_dialer_create
and
.Fn spoke_listener_create
check the URL only, so that options can be set before
.Fn spoke_dialer_start
and
.Fn spoke_listener_start
do the rest.
.Fn spoke_dialer_close
closes the dialer's connection;
.Fn spoke_listener_close
leaves those that it accepted alone, and removes the socket file if it is still its own.
.Pp
URLs are explained in
.Xr spoke 7 .
.Ss Sending and receiving
.Fn spoke_send
takes
.Fa m
if it succeeds; if it fails,
.Fa m
stays the caller's, and nothing has changed.
Success means that the message is queued or written; if it is lost later, a counter says so.
.Fn spoke_recv
gives a message, to be freed with
.Xr spoke_msg_free 3
or sent on.
.Pp
The flags are:
.Bl -tag -width "SPOKE_DONTWAIT"
.It Dv SPOKE_DONTWAIT
Fail with
.Dv SPOKE_EAGAIN
instead of waiting.
.It Dv SPOKE_MORE
More follows at once: the engine may keep this one until it comes.
.El
.Pp
.Fn spoke_sendv
sends
.Fa count
messages in order and returns how many were taken, which are then no longer the caller's;
.Fn spoke_recvv
waits for one message, takes what else is there, up to
.Fa count ,
and returns how many.
.Fn spoke_send_bytes
and
.Fn spoke_recv_bytes
copy:
.Fa *size
is the room in
.Fa buffer ,
then the size of the whole message; what does not fit is lost.
.Ss Callbacks
Callbacks run on the engine's thread, one at a time, with no lock held, and may call everything, also close the socket;
a call that would have to wait gives
.Dv SPOKE_EDEADLK .
.Dv NULL
takes a callback away.
.Pp
.Fn spoke_socket_on_message
gives each received message to
.Fa fn ;
blocking receives then give
.Dv SPOKE_ESTATE .
.Fn spoke_socket_on_writable
tells, after a send gave
.Dv SPOKE_EAGAIN ,
that one would now succeed.
.Fn spoke_socket_on_event
tells what happens to the connections:
.Dv SPOKE_EVENT_ATTACHING
.Po a peer shook hands; an error refuses it
.Pc ,
.Dv SPOKE_EVENT_ATTACHED ,
.Dv SPOKE_EVENT_DETACHED ,
.Dv SPOKE_EVENT_DIAL_FAILED
and
.Dv SPOKE_EVENT_ACCEPT_FAILED ,
with the reason, the pipe's number, whose it is, and the URL.
.Fn spoke_pipe_close
closes one connection by its number; a dialer dials again.
.Ss Statistics
.Fn spoke_socket_stats
copies the socket's counters:
.Bl -tag -width indent
"""+''.join(f'.It Va {n}\n{t.replace("SPOKE_OPT","SPOKE_OPT")}\n' for n,t in stats)+r""".El
.Sh RETURN VALUES
0, or a count, or an error from
.Xr spoke_error 3 .
Out-pointers are
.Dv NULL
after an error.
.Sh ERRORS
Every call may give
.Dv SPOKE_ECLOSED , SPOKE_EWRONGTHREAD , SPOKE_EFORKED
and
.Dv SPOKE_EINVAL .
.Bl -tag -width "SPOKE_EADDRINUSE"
.It Dv SPOKE_EAGAIN , SPOKE_ETIMEDOUT
send and receive: it would have to wait; the time of
.Dv SPOKE_OPT_SEND_TIMEOUT
or
.Dv SPOKE_OPT_RECV_TIMEOUT
is up
.It Dv SPOKE_ESTATE
the pattern does not allow it now
.It Dv SPOKE_ENOTSUP
the pattern never does; there is no such pattern
.It Dv SPOKE_ECANCELED , SPOKE_ECONNRESET
receive on REQ: another request took this one's place; the replier has gone and retry is off
.It Dv SPOKE_EMSGSIZE
the message is too large
.It Dv SPOKE_EURL , SPOKE_ESCHEME , SPOKE_ENAMETOOLONG , SPOKE_ENODEV
dial and listen: what is wrong with the URL
.It Dv SPOKE_EADDRINUSE , SPOKE_EADDRNOTAVAIL , SPOKE_EACCES , SPOKE_ENOENT , SPOKE_ENOTSOCK , SPOKE_EHOST
listen: why the address cannot be bound.
A stale socket file is replaced; a file that is no socket is never touched.
.It Dv SPOKE_EDEADLK
called from inside a callback, it would have to wait
.It Dv SPOKE_ENOENT
there is no such pipe
.It Dv SPOKE_ENOMEM , SPOKE_EMFILE , SPOKE_ELIMIT
out of memory, descriptors, or handles
.El
.Sh EXAMPLES
A service:
.Bd -literal -offset indent
spoke_socket *s;
spoke_msg *m;

spoke_socket_open(&s, SPOKE_REP, NULL);
spoke_listen(s, "ipc:///run/echo.sock", NULL, 0);
while (spoke_recv(s, &m, 0) == 0) {
    if (spoke_send(s, m, 0) != 0)
        spoke_msg_free(m);
}
spoke_socket_close(s);
.Ed
.Sh SEE ALSO
.Xr spoke_engine 3 ,
.Xr spoke_error 3 ,
.Xr spoke_message 3 ,
.Xr spoke_option 3 ,
.Xr spoke 7
""")
