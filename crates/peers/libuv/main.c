// libuv: handles and callbacks on a loop. The workloads of src/peers, of the same shape and with the same arguments:
//
//   peers-libuv WORKLOAD [--ops N] [--of FDS] [--ready FDS] [--threads N] [--seconds N]
//
// Prints one line of JSON: what the measured part took.
#define _GNU_SOURCE
#include <fcntl.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <uv.h>

#define CHECK(condition)                                                   \
  do {                                                                     \
    if (!(condition)) {                                                    \
      fprintf(stderr, "%s:%d: %s is false\n", __FILE__, __LINE__, #condition); \
      exit(1);                                                             \
    }                                                                      \
  } while (0)

static size_t ops = 1000, of = 1, ready = 1, threads = 1, seconds = 1;

// --- What the measured part took --------------------------------------------------------------------------------

typedef struct {
  long long ns, cpu_ns;
  long voluntary, involuntary;
} usage_t;

static usage_t began, took;

static usage_t usage_now(void) {
  struct rusage usage;
  struct timespec cpu;
  CHECK(getrusage(RUSAGE_SELF, &usage) == 0);
  CHECK(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu) == 0);
  return (usage_t){(long long)uv_hrtime(), cpu.tv_sec * 1000000000LL + cpu.tv_nsec, usage.ru_nvcsw, usage.ru_nivcsw};
}

static void begin(void) { began = usage_now(); }

static void end(void) {
  usage_t now = usage_now();
  took = (usage_t){now.ns - began.ns, now.cpu_ns - began.cpu_ns, now.voluntary - began.voluntary,
                   now.involuntary - began.involuntary};
}

// --- The fds that all peers use -----------------------------------------------------------------------------------

static int event(void) {
  int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  CHECK(fd >= 0);
  return fd;
}

static void signal_fd(int fd) {
  uint64_t one = 1;
  CHECK(write(fd, &one, sizeof one) == sizeof one);
}

static void clear_fd(int fd) {
  uint64_t value;
  CHECK(read(fd, &value, sizeof value) == sizeof value);
}

static void watch(uv_loop_t *loop, uv_poll_t *handle, int fd, uv_poll_cb callback) {
  CHECK(uv_poll_init(loop, handle, fd) == 0);
  CHECK(uv_poll_start(handle, UV_READABLE, callback) == 0);
}

static void never(uv_poll_t *handle, int status, int events) {
  (void)handle, (void)status, (void)events;
  CHECK(0);
}

// --- Workloads ----------------------------------------------------------------------------------------------------

static uv_loop_t loop;
static size_t seen;

static void count(uv_async_t *handle) {
  (void)handle;
  seen++;
}

static void call_awake(void) {
  uv_poll_t idle;
  uv_async_t told;
  watch(&loop, &idle, event(), never);
  CHECK(uv_async_init(&loop, &told, count) == 0);
  begin();
  for (size_t op = 0; op < ops; op++) {
    uv_async_send(&told);
    uv_run(&loop, UV_RUN_NOWAIT);
  }
  end();
  CHECK(seen == ops);
}

static void storm(void *told) {
  for (size_t op = 0; op < ops; op++) uv_async_send(told);
}

static void notify_storm(void) {
  uv_async_t told;
  uv_thread_t thread;
  CHECK(uv_async_init(&loop, &told, count) == 0);
  begin();
  CHECK(uv_thread_create(&thread, storm, &told) == 0);
  uv_thread_join(&thread);
  uv_run(&loop, UV_RUN_NOWAIT);
  end();
  CHECK(seen == 1);
}

static atomic_uint head;
static unsigned tail;

static void look(uv_check_t *handle) {
  (void)handle;
  unsigned now = atomic_load_explicit(&head, memory_order_acquire);
  if (now == tail) return;
  tail = now;
  seen++;
}

static void spin(uv_idle_t *handle) { (void)handle; }

// A check handle looks at the word in each turn, an idle handle keeps the loop from sleeping.
static void polled_hit(void) {
  uv_check_t check;
  uv_idle_t idle;
  uv_check_init(&loop, &check);
  uv_check_start(&check, look);
  uv_idle_init(&loop, &idle);
  uv_idle_start(&idle, spin);
  begin();
  for (size_t op = 0; op < ops; op++) {
    atomic_fetch_add(&head, 1);
    uv_run(&loop, UV_RUN_NOWAIT);
  }
  end();
  CHECK(seen == ops);
}

typedef struct {
  uv_loop_t loop;
  uv_thread_t thread;
  uv_sem_t start;
  uv_async_t main_async, worker_async;
  size_t main_seen, worker_seen;
} pinger_t;

static void worker_cb(uv_async_t *handle) {
  pinger_t *pinger = handle->data;
  if (++pinger->worker_seen < ops) uv_async_send(&pinger->main_async);
  else uv_close((uv_handle_t *)handle, NULL);
}

static void main_cb(uv_async_t *handle) {
  pinger_t *pinger = handle->data;
  uv_async_send(&pinger->worker_async);
  if (++pinger->main_seen == ops) uv_close((uv_handle_t *)handle, NULL);
}

static void worker(void *arg) {
  pinger_t *pinger = arg;
  uv_sem_wait(&pinger->start);
  uv_async_send(&pinger->main_async);
  uv_run(&pinger->loop, UV_RUN_DEFAULT);
}

static void pings(void) {
  pinger_t *pingers = calloc(threads, sizeof *pingers);
  for (size_t i = 0; i < threads; i++) {
    pinger_t *pinger = &pingers[i];
    CHECK(uv_loop_init(&pinger->loop) == 0);
    CHECK(uv_sem_init(&pinger->start, 0) == 0);
    CHECK(uv_async_init(&pinger->loop, &pinger->worker_async, worker_cb) == 0);
    CHECK(uv_async_init(&loop, &pinger->main_async, main_cb) == 0);
    pinger->main_async.data = pinger->worker_async.data = pinger;
    CHECK(uv_thread_create(&pinger->thread, worker, pinger) == 0);
  }
  begin();
  for (size_t i = 0; i < threads; i++) uv_sem_post(&pingers[i].start);
  uv_run(&loop, UV_RUN_DEFAULT);
  for (size_t i = 0; i < threads; i++) uv_thread_join(&pingers[i].thread);
  end();
  for (size_t i = 0; i < threads; i++) CHECK(pingers[i].main_seen == ops && pingers[i].worker_seen == ops);
}

static atomic_int done;

static void pummel_cb(uv_async_t *handle) {
  if (++seen == ops) uv_close((uv_handle_t *)handle, NULL);
}

static void pummel_thread(void *told) {
  while (!atomic_load_explicit(&done, memory_order_relaxed)) uv_async_send(told);
}

static void pummel(void) {
  // The threads go on a little after the handle is closed: its memory outlives them.
  static uv_async_t told;
  uv_thread_t *ids = calloc(threads, sizeof *ids);
  CHECK(uv_async_init(&loop, &told, pummel_cb) == 0);
  begin();
  for (size_t i = 0; i < threads; i++) CHECK(uv_thread_create(&ids[i], pummel_thread, &told) == 0);
  uv_run(&loop, UV_RUN_DEFAULT);
  atomic_store(&done, 1);
  for (size_t i = 0; i < threads; i++) uv_thread_join(&ids[i]);
  end();
}

static char PING[] = "PING\n";
static char client_buffer[4096], server_buffer[4096];
static size_t bytes;

static void client_alloc(uv_handle_t *handle, size_t size, uv_buf_t *buffer) {
  (void)handle, (void)size;
  *buffer = uv_buf_init(client_buffer, sizeof client_buffer);
}

static void server_alloc(uv_handle_t *handle, size_t size, uv_buf_t *buffer) {
  (void)handle, (void)size;
  *buffer = uv_buf_init(server_buffer, sizeof server_buffer);
}

static void written(uv_write_t *request, int status) {
  CHECK(status == 0 || status == UV_ECANCELED);
  free(request);
}

static void send_all(uv_stream_t *stream, char *message, size_t length) {
  uv_buf_t buffer = uv_buf_init(message, (unsigned)length);
  CHECK(uv_write(malloc(sizeof(uv_write_t)), stream, &buffer, 1, written) == 0);
}

static void server_read(uv_stream_t *stream, ssize_t length, const uv_buf_t *buffer) {
  if (length > 0) send_all(stream, buffer->base, (size_t)length);
  else if (length < 0) uv_close((uv_handle_t *)stream, NULL);
}

static void client_read(uv_stream_t *stream, ssize_t length, const uv_buf_t *buffer) {
  (void)buffer;
  CHECK(length >= 0);
  bytes += (size_t)length;
  if (bytes < sizeof PING - 1) return;
  bytes -= sizeof PING - 1;
  if (++seen == ops) uv_close((uv_handle_t *)stream, NULL);
  else send_all(stream, PING, sizeof PING - 1);
}

static void connection(int fds[2]) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof address;
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  CHECK(bind(listener, (struct sockaddr *)&address, length) == 0 && listen(listener, 1) == 0);
  CHECK(getsockname(listener, (struct sockaddr *)&address, &length) == 0);
  fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  CHECK(connect(fds[0], (struct sockaddr *)&address, length) == 0);
  fds[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
  CHECK(fds[1] >= 0);
  close(listener);
}

static void echo(void *fd) {
  uv_loop_t own;
  uv_tcp_t server;
  CHECK(uv_loop_init(&own) == 0);
  CHECK(uv_tcp_init(&own, &server) == 0 && uv_tcp_open(&server, (int)(intptr_t)fd) == 0);
  CHECK(uv_read_start((uv_stream_t *)&server, server_alloc, server_read) == 0);
  uv_run(&own, UV_RUN_DEFAULT);
}

static void ping_pongs(void) {
  int fds[2];
  uv_tcp_t client;
  uv_thread_t thread;
  connection(fds);
  CHECK(uv_thread_create(&thread, echo, (void *)(intptr_t)fds[1]) == 0);
  CHECK(uv_tcp_init(&loop, &client) == 0 && uv_tcp_open(&client, fds[0]) == 0);
  CHECK(uv_read_start((uv_stream_t *)&client, client_alloc, client_read) == 0);
  begin();
  send_all((uv_stream_t *)&client, PING, sizeof PING - 1);
  uv_run(&loop, UV_RUN_DEFAULT);
  end();
  uv_thread_join(&thread);
}

static void timer_cb(uv_timer_t *timer) {
  (void)timer;
  seen++;
}

static void million_timers(void) {
  begin();
  uv_timer_t *timers = malloc(ops * sizeof *timers);
  for (size_t i = 0; i < ops; i++) {
    uv_timer_init(&loop, &timers[i]);
    uv_timer_start(&timers[i], timer_cb, i / 1000 + 1, 0);
  }
  uv_run(&loop, UV_RUN_DEFAULT);
  for (size_t i = 0; i < ops; i++) uv_close((uv_handle_t *)&timers[i], NULL);
  uv_run(&loop, UV_RUN_DEFAULT);
  free(timers);
  end();
  CHECK(seen == ops);
}

static void reader_cb(uv_poll_t *handle, int status, int events) {
  char byte;
  (void)events;
  CHECK(status == 0);
  if (++seen == ready) CHECK(read((int)(intptr_t)handle->data, &byte, 1) == 1);
}

static void poll_bench(void) {
  int fds[2];
  uv_poll_t *handles = calloc(ready, sizeof *handles);
  CHECK(pipe2(fds, O_CLOEXEC | O_NONBLOCK) == 0);
  for (size_t i = 0; i < ready; i++) {
    int fd = dup(fds[0]);
    watch(&loop, &handles[i], fd, reader_cb);
    handles[i].data = (void *)(intptr_t)fd;
  }
  begin();
  for (size_t round = 0; round < ops / ready; round++) {
    seen = 0;
    CHECK(write(fds[1], "", 1) == 1);
    while (seen < ready) uv_run(&loop, UV_RUN_ONCE);
  }
  end();
}

static void dispatch_cb(uv_poll_t *handle, int status, int events) {
  (void)events;
  CHECK(status == 0);
  clear_fd((int)(intptr_t)handle->data);
  seen++;
}

static void dispatch(void) {
  uv_poll_t *handles = calloc(of, sizeof *handles);
  int *fds = calloc(of, sizeof *fds);
  for (size_t i = 0; i < of; i++) {
    fds[i] = event();
    watch(&loop, &handles[i], fds[i], dispatch_cb);
    handles[i].data = (void *)(intptr_t)fds[i];
  }
  uv_run(&loop, UV_RUN_NOWAIT); // libuv tells the kernel in its next turn
  begin();
  for (size_t round = 1; round <= ops / ready; round++) {
    for (size_t i = of - ready; i < of; i++) signal_fd(fds[i]);
    while (seen < round * ready) uv_run(&loop, UV_RUN_ONCE);
  }
  end();
}

static void registering(void) {
  uv_poll_t *handles = calloc(of, sizeof *handles);
  int *fds = calloc(of, sizeof *fds);
  for (size_t i = 0; i < of; i++) fds[i] = event();
  begin();
  for (size_t i = 0; i < ops; i++) watch(&loop, &handles[i], fds[i], never);
  uv_run(&loop, UV_RUN_NOWAIT);
  for (size_t i = 0; i < ops; i++) uv_close((uv_handle_t *)&handles[i], NULL);
  uv_run(&loop, UV_RUN_NOWAIT);
  end();
}

static void stop(uv_timer_t *timer) { uv_stop(timer->loop); }

static void idle(void) {
  uv_poll_t handles[100];
  uv_timer_t timer;
  for (size_t i = 0; i < 100; i++) watch(&loop, &handles[i], event(), never);
  uv_timer_init(&loop, &timer);
  uv_timer_start(&timer, stop, seconds * 1000, 0);
  begin();
  uv_run(&loop, UV_RUN_DEFAULT);
  end();
}

static const struct {
  const char *name;
  void (*run)(void);
} WORKLOADS[] = {
    {"call-awake", call_awake}, {"notify-storm", notify_storm},     {"polled-hit", polled_hit},
    {"async", pings},               {"async-pummel", pummel},           {"ping-pongs", ping_pongs},
    {"million-timers", million_timers}, {"poll-bench", poll_bench},     {"dispatch", dispatch},
    {"register", registering},      {"idle", idle},
};

int main(int argc, char **argv) {
  const struct {
    const char *name;
    size_t *value;
  } options[] = {{"--ops", &ops}, {"--of", &of}, {"--ready", &ready}, {"--threads", &threads}, {"--seconds", &seconds}};
  for (int i = 2; i + 1 < argc; i += 2) {
    for (size_t j = 0; j < sizeof options / sizeof *options; j++) {
      if (strcmp(argv[i], options[j].name) == 0) *options[j].value = strtoull(argv[i + 1], NULL, 10);
    }
  }
  struct rlimit limit;
  CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
  limit.rlim_cur = limit.rlim_max;
  CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
  CHECK(uv_loop_init(&loop) == 0);
  for (size_t i = 0; argc > 1 && i < sizeof WORKLOADS / sizeof *WORKLOADS; i++) {
    if (strcmp(argv[1], WORKLOADS[i].name) != 0) continue;
    WORKLOADS[i].run();
    printf("{\"ns\":%lld,\"cpuNs\":%lld,\"voluntary\":%ld,\"involuntary\":%ld,\"version\":\"%s\"}\n", took.ns, took.cpu_ns,
           took.voluntary, took.involuntary, uv_version_string());
    return 0;
  }
  for (size_t i = 0; i < sizeof WORKLOADS / sizeof *WORKLOADS; i++) fprintf(stderr, "libuv %s\n", WORKLOADS[i].name);
  return argc > 1 ? 2 : 0;
}
