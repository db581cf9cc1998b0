// What a program does today that watches an fd from an addon: a uv_poll handle, and one callback a time that it is ready. And
// how soon anything could be that asks the kernel within Node: a prepare handle that does nothing but poll(2) and call back.
// The comparison of `npm run bench:attach`; nothing of fdmon is in it. Built by the script with the system's C compiler.
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <poll.h>
#include <stdlib.h>

// Node-API and libuv as this file needs them; their headers are not part of an installed Node.
typedef struct napi_env__ *napi_env;
typedef struct napi_value__ *napi_value;
typedef struct napi_ref__ *napi_ref;
typedef struct napi_handle_scope__ *napi_handle_scope;
typedef struct napi_async_context__ *napi_async_context;
typedef struct napi_callback_info__ *napi_callback_info;
typedef napi_value (*napi_callback)(napi_env, napi_callback_info);
extern int napi_get_uv_event_loop(napi_env, void **);
extern int napi_create_reference(napi_env, napi_value, uint32_t, napi_ref *);
extern int napi_delete_reference(napi_env, napi_ref);
extern int napi_get_reference_value(napi_env, napi_ref, napi_value *);
extern int napi_open_handle_scope(napi_env, napi_handle_scope *);
extern int napi_close_handle_scope(napi_env, napi_handle_scope);
extern int napi_create_object(napi_env, napi_value *);
extern int napi_create_string_utf8(napi_env, const char *, size_t, napi_value *);
extern int napi_create_int32(napi_env, int32_t, napi_value *);
extern int napi_create_function(napi_env, const char *, size_t, napi_callback, void *, napi_value *);
extern int napi_get_value_int32(napi_env, napi_value, int32_t *);
extern int napi_get_cb_info(napi_env, napi_callback_info, size_t *, napi_value *, napi_value *, void **);
extern int napi_set_named_property(napi_env, napi_value, const char *, napi_value);
extern int napi_async_init(napi_env, napi_value, napi_value, napi_async_context *);
extern int napi_async_destroy(napi_env, napi_async_context);
extern int napi_make_callback(napi_env, napi_async_context, napi_value, napi_value, size_t, const napi_value *, napi_value *);
extern size_t uv_handle_size(int);
extern void uv_handle_set_data(void *, void *);
extern void *uv_handle_get_data(const void *);
extern int uv_poll_init(void *, void *, int);
extern int uv_poll_start(void *, int, void (*)(void *, int, int));
extern uint64_t uv_hrtime(void);
extern int uv_prepare_init(void *, void *);
extern int uv_prepare_start(void *, void (*)(void *));
extern void uv_close(void *, void (*)(void *));

struct watch {
  napi_env env;
  napi_ref callback, resource;
  napi_async_context scope;
  int fd;
};
static void *last; // the bench watches one fd at a time

static void ready(void *handle, int status, int events) {
  struct watch *w = uv_handle_get_data(handle);
  napi_handle_scope scope;
  napi_value callback, resource, arguments[2], result;
  (void)status;
  napi_open_handle_scope(w->env, &scope);
  napi_get_reference_value(w->env, w->callback, &callback);
  napi_get_reference_value(w->env, w->resource, &resource);
  napi_create_int32(w->env, w->fd, &arguments[0]);
  napi_create_int32(w->env, events, &arguments[1]);
  napi_make_callback(w->env, w->scope, resource, callback, 2, arguments, &result);
  napi_close_handle_scope(w->env, scope);
}

static napi_value watch(napi_env env, napi_callback_info info) {
  size_t count = 2;
  napi_value arguments[2], resource, name;
  void *loop;
  struct watch *w = calloc(1, sizeof *w);
  w->env = env;
  napi_get_cb_info(env, info, &count, arguments, NULL, NULL);
  napi_get_value_int32(env, arguments[0], &w->fd);
  napi_create_reference(env, arguments[1], 1, &w->callback);
  napi_create_object(env, &resource);
  napi_create_reference(env, resource, 1, &w->resource);
  napi_create_string_utf8(env, "UV_POLL", 7, &name);
  napi_async_init(env, resource, name, &w->scope);
  napi_get_uv_event_loop(env, &loop);
  last = calloc(1, uv_handle_size(8 /* UV_POLL */));
  uv_poll_init(loop, last, w->fd);
  uv_handle_set_data(last, w);
  uv_poll_start(last, 1 /* UV_READABLE */, ready);
  return NULL;
}

static void *spinner; // the prepare handle, where there is one

// For half a millisecond after each event; what comes later is uv_poll's.
static void prepare(void *handle) {
  struct watch *w = uv_handle_get_data(handle);
  struct pollfd fd = {.fd = w->fd, .events = POLLIN};
  for (uint64_t until = uv_hrtime() + 500000; spinner != NULL && uv_hrtime() < until;) {
    if (poll(&fd, 1, 0) <= 0) continue;
    ready(handle, 0, 1);
    until = uv_hrtime() + 500000;
  }
}

static napi_value spin(napi_env env, napi_callback_info info) {
  void *loop;
  watch(env, info);
  napi_get_uv_event_loop(env, &loop);
  spinner = calloc(1, uv_handle_size(9 /* UV_PREPARE */));
  uv_prepare_init(loop, spinner);
  uv_handle_set_data(spinner, uv_handle_get_data(last));
  uv_prepare_start(spinner, prepare);
  return NULL;
}

static void closed(void *handle) {
  struct watch *w = uv_handle_get_data(handle);
  napi_async_destroy(w->env, w->scope);
  napi_delete_reference(w->env, w->callback);
  napi_delete_reference(w->env, w->resource);
  free(w);
  free(handle);
}

static napi_value stop(napi_env env, napi_callback_info info) {
  (void)env;
  (void)info;
  if (spinner != NULL) uv_close(spinner, (void (*)(void *))free);
  spinner = NULL;
  uv_close(last, closed);
  return NULL;
}

int32_t node_api_module_get_api_version_v1(void) { return 8; }

napi_value napi_register_module_v1(napi_env env, napi_value exports) {
  napi_value function;
  napi_create_function(env, "watch", 5, watch, NULL, &function);
  napi_set_named_property(env, exports, "watch", function);
  napi_create_function(env, "spin", 4, spin, NULL, &function);
  napi_set_named_property(env, exports, "spin", function);
  napi_create_function(env, "stop", 4, stop, NULL, &function);
  napi_set_named_property(env, exports, "stop", function);
  return exports;
}
