// The public names of 'fdmon', and nothing else.
export { capabilities, type Capabilities } from './capabilities.js'
export { Channel, type ChannelOptions } from './channel/channel.js'
export type { ChannelHandle } from './channel/parts.js'
export { ChannelPort, type ChannelEvents } from './channel/port.js'
export { AioContext, type ContextStats, type LeakReport } from './context.js'
export { BottomHalf } from './bottom-half.js'
export { FdmonError, type FdmonErrorCode } from './errors.js'
export type { FdLike } from './fd-like.js'
export { alignedBuffer, type IoCallback, type IoOptions } from './file-io.js'
export { Events, type FdHandlers, type WordCondition } from './handlers.js'
export { currentContext, IoThread, type IoThreadOptions } from './io-thread.js'
export { EventNotifier, type EventNotifierHandle } from './notifier.js'
export type { AioContextOptions, AioParams, BusyPoll, MonitorName, PollParams, RingParams } from './options.js'
export type { Registration } from './registration.js'
export type { RemoteContext } from './remote.js'
export { publishStats, type StatsPage } from './stats-page.js'
export { Timer } from './timer.js'
export { Trace, type TraceOptions } from './trace.js'
export type {
  HandlerMessage,
  MonitorMessage,
  PollBeginMessage,
  PollEndMessage,
  TraceMessage,
  TraceMessages,
  WindowMessage,
} from './tracing.js'
export { defaultContext, readable, watch } from './watch.js'
