/* What the kernel can do, asked without fdmon: one line "name 0|1" for each feature of capabilities(), and some that it does not name.
 *
 * Everything is tried, by its effect where it has one; no version and, where there is another way, no bit of `features` is believed. The
 * numbers of the kernel's interface are written out, so that the headers of the machine that compiles it do not matter.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { SETUP = 425, ENTER = 426, REGISTER = 427, PIDFD_OPEN = 434, EPOLL_PWAIT2 = 441 };
enum { R_DISABLED = 1 << 6, COOP_TASKRUN = 1 << 8, TASKRUN_FLAG = 1 << 9, SINGLE_ISSUER = 1 << 12, DEFER_TASKRUN = 1 << 13, NO_SQARRAY = 1 << 16 };
enum { GETEVENTS = 1, EXT_ARG = 1 << 3, REGISTERED_RING = 1 << 4, NO_IOWAIT = 1 << 7 };
enum { RESTRICT = 11, ENABLE = 12, RING_FDS = 20, NAPI = 27 };
enum { NOP = 0, POLL_ADD = 6, SKIP_SUCCESS = 1 << 6, MULTISHOT = 1 };

struct sqe { uint8_t op, flags; uint16_t prio; int32_t fd; uint64_t off, addr; uint32_t len, events; uint64_t data; uint64_t rest[3]; };
struct cqe { uint64_t data; int32_t result; uint32_t flags; };
struct params {
  uint32_t sq, cq, flags, cpu, idle, features, wq, zero[3];
  struct { uint32_t head, tail, mask, entries, flags, dropped, array, zero; uint64_t address; } so;
  struct { uint32_t head, tail, mask, entries, overflow, cqes, flags, zero; uint64_t address; } co;
};
struct ring { int fd; struct params p; char *words; struct sqe *entries; };
struct argument { uint64_t mask; uint32_t size, min_us; struct timespec *timeout; };

static uint32_t *word(struct ring *r, uint32_t at) { return (uint32_t *)(r->words + at); }

static void close_ring(struct ring *r) {
  if (r->words) munmap(r->words, 4096);
  if (r->entries) munmap(r->entries, 512);
  close(r->fd);
}

/* Eight entries: everything lies in one page. */
static int make(struct ring *r, uint32_t flags) {
  memset(r, 0, sizeof *r);
  r->p.flags = flags;
  r->fd = syscall(SETUP, 8, &r->p);
  if (r->fd < 0) return 0;
  r->words = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, 0);
  r->entries = mmap(0, 512, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, 0x10000000);
  if (r->words != MAP_FAILED && r->entries != MAP_FAILED) return 1;
  close(r->fd);
  return 0;
}

static struct sqe *put(struct ring *r, uint8_t op, int fd, uint64_t data) {
  uint32_t tail = *word(r, r->p.so.tail), at = tail & 7;
  if (!(r->p.flags & NO_SQARRAY)) *word(r, r->p.so.array + 4 * at) = at;
  r->entries[at] = (struct sqe){.op = op, .fd = fd, .data = data};
  __atomic_store_n(word(r, r->p.so.tail), tail + 1, __ATOMIC_RELEASE);
  return &r->entries[at];
}

static int enter(struct ring *r, uint32_t submit, uint32_t wait, uint32_t flags) {
  return syscall(ENTER, r->fd, submit, wait, flags, 0, 0);
}

static int take(struct ring *r, struct cqe *c) {
  uint32_t head = *word(r, r->p.co.head);
  if (head == __atomic_load_n(word(r, r->p.co.tail), __ATOMIC_ACQUIRE)) return 0;
  *c = ((struct cqe *)(r->words + r->p.co.cqes))[head & *word(r, r->p.co.mask)];
  __atomic_store_n(word(r, r->p.co.head), head + 1, __ATOMIC_RELEASE);
  return 1;
}

/* A ring of this kind completes a request. */
static int works(uint32_t flags) {
  struct ring r;
  struct cqe c = {0};
  if (!make(&r, flags)) return 0;
  put(&r, NOP, -1, 7);
  int done = enter(&r, 1, 1, GETEVENTS) == 1 && take(&r, &c) && c.data == 7 && c.result == 0;
  close_ring(&r);
  return done;
}

static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}

/* A wait for what never comes ends by its own timeout. */
static int ext_arg(void) {
  struct ring r;
  if (!make(&r, 0)) return 0;
  struct timespec soon = {0, 2000000};
  struct argument a = {0, 0, 0, &soon};
  double begin = seconds();
  int result = syscall(ENTER, r.fd, 0, 1, GETEVENTS | EXT_ARG, &a, sizeof a);
  int ended = result < 0 && errno == ETIME && seconds() - begin >= 0.002;
  close_ring(&r);
  return ended;
}

/* An endless wait for two completions, of which one is there, ends after the shorter time that goes with it. */
static int min_timeout(void) {
  struct ring r;
  if (!make(&r, SINGLE_ISSUER | DEFER_TASKRUN)) return 0;
  struct timespec late = {2, 0};
  struct argument a = {0, 0, 2000, &late};
  put(&r, NOP, -1, 1);
  double begin = seconds();
  int result = syscall(ENTER, r.fd, 1, 2, GETEVENTS | EXT_ARG, &a, sizeof a);
  double took = seconds() - begin;
  int ended = result == 1 && took >= 0.002 && took < 1.5; /* older kernels refuse it at once */
  close_ring(&r);
  return ended;
}

static int no_iowait(void) {
  struct ring r;
  if (!make(&r, 0)) return 0;
  put(&r, NOP, -1, 1);
  int done = enter(&r, 1, 1, GETEVENTS | NO_IOWAIT) == 1;
  close_ring(&r);
  return done;
}

static int registered_ring(void) {
  struct ring r;
  if (!make(&r, 0)) return 0;
  struct { uint32_t at, zero; uint64_t fd; } update = {-1, 0, r.fd};
  int done = 0;
  if (syscall(REGISTER, r.fd, RING_FDS, &update, 1) == 1) {
    put(&r, NOP, -1, 1);
    done = syscall(ENTER, update.at, 1, 1, GETEVENTS | REGISTERED_RING, 0, 0) == 1;
  }
  close_ring(&r);
  return done;
}

/* Allowed is NOP, so a poll is refused. */
static int restrictions(void) {
  struct ring r;
  struct cqe c = {0};
  struct { uint16_t what; uint8_t op, zero; uint32_t zeros[3]; } only = {1, NOP, 0, {0}};
  if (!make(&r, R_DISABLED)) return 0;
  int done = 0;
  if (syscall(REGISTER, r.fd, RESTRICT, &only, 1) == 0 && syscall(REGISTER, r.fd, ENABLE, 0, 0) == 0) {
    int event = eventfd(1, 0);
    put(&r, POLL_ADD, event, 1)->events = POLLIN;
    done = enter(&r, 1, 1, GETEVENTS) == 1 && take(&r, &c) && c.result == -EACCES;
    close(event);
  }
  close_ring(&r);
  return done;
}

/* Of two that succeed, one stays silent. */
static int skip_success(void) {
  struct ring r;
  struct cqe c = {0};
  if (!make(&r, 0)) return 0;
  put(&r, NOP, -1, 1)->flags = SKIP_SUCCESS;
  put(&r, NOP, -1, 2);
  int done = enter(&r, 2, 1, GETEVENTS) == 2 && take(&r, &c) && c.data == 2 && !take(&r, &c);
  close_ring(&r);
  return done;
}

/* One request, two reports. */
static int multishot_poll(void) {
  struct ring r;
  struct cqe c = {0};
  if (!make(&r, 0)) return 0;
  int event = eventfd(0, EFD_NONBLOCK), reports = 0;
  uint64_t one = 1;
  struct sqe *entry = put(&r, POLL_ADD, event, 1);
  entry->len = MULTISHOT;
  entry->events = POLLIN;
  enter(&r, 1, 0, 0);
  for (int i = 0; i < 2; i++) {
    if (write(event, &one, 8) != 8) break;
    enter(&r, 0, 0, GETEVENTS);
    while (take(&r, &c)) reports += c.result == POLLIN;
    if (read(event, &one, 8) != 8) break;
  }
  close(event);
  close_ring(&r);
  return reports >= 2;
}

static int napi(void) {
  struct ring r;
  struct { uint32_t us; uint8_t prefer, op, zero[2]; uint32_t param, zeros; } queue = {1, 0, 0, {0}, 0, 0};
  if (!make(&r, 0)) return 0;
  int done = syscall(REGISTER, r.fd, NAPI, &queue, 1) == 0;
  close_ring(&r);
  return done;
}

static int epoll_busy_poll(void) {
  struct { uint32_t us; uint16_t budget; uint8_t prefer, zero; } set = {1, 0, 0, 0}, got = {0};
  int epoll = epoll_create1(EPOLL_CLOEXEC);
  int done = ioctl(epoll, _IOC(_IOC_WRITE, 0x8A, 1, 8), &set) == 0 && ioctl(epoll, _IOC(_IOC_READ, 0x8A, 2, 8), &got) == 0 && got.us == 1;
  close(epoll);
  return done;
}

static int pwait2(void) {
  struct epoll_event event;
  struct timespec soon = {0, 1000};
  int epoll = epoll_create1(EPOLL_CLOEXEC);
  int done = syscall(EPOLL_PWAIT2, epoll, &event, 1, &soon, 0, 8) == 0;
  close(epoll);
  return done;
}

static int epoll(void) {
  struct epoll_event event = {.events = EPOLLIN};
  int set = epoll_create1(EPOLL_CLOEXEC), ready = eventfd(1, 0);
  int done = epoll_ctl(set, EPOLL_CTL_ADD, ready, &event) == 0 && epoll_wait(set, &event, 1, 0) == 1;
  close(set);
  close(ready);
  return done;
}

static int poll_(void) {
  struct pollfd ready = {.fd = eventfd(1, 0), .events = POLLIN};
  struct timespec none = {0, 0};
  int done = ppoll(&ready, 1, &none, 0) == 1;
  close(ready.fd);
  return done;
}

static int opens(int fd) {
  if (fd >= 0) close(fd);
  return fd >= 0;
}

int main(void) {
  int plain = works(0);
  printf("poll %d\nepoll %d\nring %d\n", poll_(), epoll(), plain);
  printf("io_uring %d\n", plain && ext_arg());
  printf("eventfd %d\n", opens(eventfd(0, EFD_CLOEXEC)));
  printf("timerfd %d\n", opens(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC)));
  printf("inotify %d\n", opens(inotify_init1(IN_CLOEXEC)));
  printf("pidfd %d\n", opens(syscall(PIDFD_OPEN, getpid(), 0)));
  printf("memfd %d\n", opens(memfd_create("probe", MFD_CLOEXEC)));
  printf("epollBusyPoll %d\n", epoll_busy_poll());
  printf("epollPwait2 %d\n", pwait2());
  printf("ioUringExtArg %d\n", ext_arg());
  printf("ioUringDeferTaskrun %d\n", works(SINGLE_ISSUER | DEFER_TASKRUN | TASKRUN_FLAG));
  printf("ioUringCooperative %d\n", works(COOP_TASKRUN | TASKRUN_FLAG));
  printf("ioUringMultishotPoll %d\n", multishot_poll());
  printf("ioUringRegisteredRing %d\n", registered_ring());
  printf("ioUringRestrictions %d\n", restrictions());
  printf("ioUringNoSqarray %d\n", works(NO_SQARRAY));
  printf("ioUringNoIowait %d\n", no_iowait());
  printf("ioUringMinTimeout %d\n", min_timeout());
  printf("ioUringNapi %d\n", napi());
  printf("ioUringSkipSuccess %d\n", skip_success());
  return 0;
}
