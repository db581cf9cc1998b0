// Every barrier, ordering, order and re-check of the wake-up protocol: the name it has in the source (kept, ordered, in_order,
// lower_early, both), and what a mutation makes of it. One that no model catches carries the argument why.

const loadBuffering =
  'The read of the link comes before the write only by this pair; without it a load might see a store that is later. Loom runs each ' +
  'thread in its program order, so that no load of a model ever does. Kept, since the language allows it.'

export const mutations = [
  // A notifier: wake.rs, remote.rs
  ['notify: release', 'what was published is not ordered before `notified`'],
  ['notify: at once', '`notified` is stored, not swapped: the chain of several notifiers breaks'],
  ['notify: barrier', 'no barrier between `notified` and the look at `notify_me`'],
  ['notify: order', '`notify_me` is looked at first'],
  ['notify: again', 'no signal where `notified` was set already'],
  ['deliver: order', 'the loop is notified before the node is pushed'],
  ['schedule: order', 'the loop is notified before the bottom half is pushed'],
  ['parameters: order', 'the loop is told of parameters before they are written'],
  ['parameters: re-check', 'a refusal undoes parameters that were asked for after the refused ones'],
  ['stop: order', 'the loop is notified before the stop is written'],
  ['stop: release', 'what was written before the stop is not ordered before it'],
  ['stop: acquire', '…nor seen after it'],
  // The loop: wake.rs, wait.rs, turn.rs
  ['accept: acquire', 'whose flag is cleared, its work need not be seen'],
  ['accept: at once', '`notified` is read and then stored: a flag set in between is lost'],
  ['settle: order', 'the inbox is read before the notification is accepted'],
  ['sleep: raise', '`notify_me` stays down during a sleep'],
  ['sleep: barrier', 'no barrier between `notify_me` and the look at `notified`'],
  ['sleep: order', '`notified` is looked at before `notify_me` is raised'],
  ['sleep: count', 'a turn that has slept lowers `notify_me` for the turns around it as well'],
  ['quick turn: re-check', 'a quick turn sleeps although it was notified'],
  ['quick turn: lower', '…lowers `notify_me` before it sleeps'],
  ['turn: re-check', 'a turn with all its steps sleeps although it was notified'],
  ['turn: lower', '…lowers `notify_me` before it sleeps'],
  ['ask: re-check', 'a sleep that the notifier ended goes on'],
  ['way: inbox', 'a turn takes a short way although the inbox is not empty'],
  ['nested: re-check', 'a turn sleeps although a nested one took the notification'],
  // An outer loop: wake.rs, embed.rs
  ['prepare: raise', 'the bit of `notify_me` stays down while an outer loop sleeps'],
  ['prepare: barrier', 'no barrier between that bit and the look at `notified`'],
  ['prepare: order', '`notified` is looked at before the bit is set'],
  ['prepare: re-check', 'the outer loop sleeps although the context was notified'],
  ['prepare: leave', 'the outer loop sleeps in spin mode'],
  ['check: lower', 'the bit stays up after the sleep'],
  // The inbox: inbox.rs, bottom_half.rs
  ['push: release', 'the node is not ordered before the head that points at it'],
  ['push: at once', 'the head is read and then stored: what was pushed in between is lost'],
  ['drain: acquire', 'the nodes behind the head need not be seen'],
  ['drain: at once', 'the head is read and then cleared'],
  ['drain: order', 'the link is read after the node was handed on, and may have been pushed again'],
  ['schedule: release', 'what was written before a schedule is not ordered before it'],
  ['schedule: acquire', 'the link is not ordered behind its last reader (here)', loadBuffering],
  ['schedule: linked', 'a node that is in the list is pushed once more'],
  ['unlink: release', 'the link is not ordered behind its last reader (there)', loadBuffering],
  ['unlink: at once', 'the schedule is read before the node is unlinked'],
  ['begin: acquire', 'what was written before the schedule need not be seen by the run'],
  ['begin: at once', 'the schedule is read and then cleared'],
  ['cancel: order', 'the schedule is cleared before the node is forgotten'],
  // The end: wake.rs
  ['close: told', 'a context that closes does not say so'],
  ['close: barrier', 'no barrier between that and the last look into the inbox'],
  ['deliver: closed', 'who pushed does not look whether the context has closed meanwhile'],
  // Spinning: spin/mod.rs, word_source.rs, register.rs
  ['spin: notified', 'a spin does not end for a notification'],
  ['turn: leave', 'a turn sleeps in spin mode'],
  ['leave: barrier', 'no barrier between the ends and the last look'],
  ['leave: look', 'no last look'],
  ['leave: order', 'the last look comes before the ends'],
  ['leave: re-check', 'a turn sleeps although a hook entered spin mode again'],
  ['idle: look', 'no last look at a member that leaves the list'],
  ['add: look', 'no first look at a handler that was added'],
  ['end: barrier', 'no barrier after the suppress word has fallen'],
  ['look: acquire', 'what was written before the word need not be seen by the callback'],
  // A producer, as the documentation has it: models/spin.rs
  ['producer: release', 'the data is not ordered before the word'],
  ['producer: barrier', 'no barrier between the word and the look at the suppress word'],
  ['producer: order', 'the suppress word is looked at first'],
].map(([step, what, argument]) => ({ step, what, argument }))
