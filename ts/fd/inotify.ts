// Changes of files and directories as a descriptor.
import { checkInteger } from '../check.js'
import { invalidArg } from '../errors.js'
import { fdHot, native } from '../native.js'
import { failed, Fd, NOT_NOW, openFd, OWN } from './fd.js'

/**
 * What an {@link Inotify} can be asked for and tells, as bits (inotify(7)).
 *
 * @example
 * ```ts
 * import { InotifyEvents } from 'fdmon/fd'
 *
 * const finished = InotifyEvents.CLOSE_WRITE | InotifyEvents.MOVED_TO
 * console.log(finished) // 136
 * ```
 */
export const InotifyEvents = Object.freeze({
  /** The file was read. */
  ACCESS: 0x1,
  /** The file was written. */
  MODIFY: 0x2,
  /** Mode, owner, times or links changed. */
  ATTRIB: 0x4,
  /** A file that was open for writing was closed. */
  CLOSE_WRITE: 0x8,
  /** A file that was not open for writing was closed. */
  CLOSE_NOWRITE: 0x10,
  /** The file was opened. */
  OPEN: 0x20,
  /** An entry was moved out of the directory; `cookie` pairs it with `MOVED_TO`. */
  MOVED_FROM: 0x40,
  /** An entry was moved into the directory. */
  MOVED_TO: 0x80,
  /** An entry was made in the directory. */
  CREATE: 0x100,
  /** An entry of the directory was deleted. */
  DELETE: 0x200,
  /** The watched file itself was deleted. */
  DELETE_SELF: 0x400,
  /** The watched file itself was moved. */
  MOVE_SELF: 0x800,
  /** `CLOSE_WRITE | CLOSE_NOWRITE` */
  CLOSE: 0x18,
  /** `MOVED_FROM | MOVED_TO` */
  MOVE: 0xc0,
  /** All of the above. */
  ALL_EVENTS: 0xfff,
  /** Told: the file system was unmounted. */
  UNMOUNT: 0x2000,
  /** Told with `wd` -1: the kernel's queue was full, events are missing. */
  Q_OVERFLOW: 0x4000,
  /** Told: the watch is gone. */
  IGNORED: 0x8000,
  /** Asked: only if the path is a directory. */
  ONLYDIR: 0x100_0000,
  /** Asked: do not follow a symbolic link. */
  DONT_FOLLOW: 0x200_0000,
  /** Asked: nothing about entries after they were deleted. */
  EXCL_UNLINK: 0x400_0000,
  /** Asked: an error if the path is watched already (Linux 4.18). */
  MASK_CREATE: 0x1000_0000,
  /** Asked: add to the events of the watch that there is. */
  MASK_ADD: 0x2000_0000,
  /** Told: the entry is a directory. */
  ISDIR: 0x4000_0000,
  /** Asked: the watch ends with its first event. */
  ONESHOT: 0x8000_0000,
} as const)

/**
 * What {@link Inotify.readEvents} tells of one change.
 *
 * @example
 * ```ts
 * import { InotifyEvents, type InotifyEvent } from 'fdmon/fd'
 *
 * const isNewFile = (event: InotifyEvent): boolean =>
 *   (event.mask & InotifyEvents.CREATE) !== 0 && (event.mask & InotifyEvents.ISDIR) === 0
 * console.log(isNewFile({ wd: 1, mask: 0x100, events: 0x100, cookie: 0, name: 'a' })) // true
 * ```
 */
export interface InotifyEvent {
  /** The watch, as returned by {@link Inotify.addWatch}; -1 with `Q_OVERFLOW`. */
  wd: number
  /** All bits of {@link InotifyEvents} that the kernel told. */
  mask: number
  /** The part of `mask` that says what happened (`ALL_EVENTS`), without the flags about it. */
  events: number
  /** The same number in the two halves of a move, else 0. */
  cookie: number
  /** The entry in a watched directory, `''` for the watched file itself. */
  name: string
}

// 64 KiB hold at least 240 events with the longest name, and 4,096 without names.
const INOTIFY_BUFFER = 65_536
let inotifyScratch: { bytes: Buffer; words: Int32Array } | undefined

/**
 * Watches files and directories: readable when something happened. Made by {@link inotify}.
 *
 * @example
 * ```ts
 * import { inotify, InotifyEvents, type Inotify } from 'fdmon/fd'
 *
 * const watcher: Inotify = inotify()
 * const wd = watcher.addWatch('.', InotifyEvents.CREATE)
 * console.log(watcher.readEvents()) // []
 * watcher.removeWatch(wd)
 * watcher.close()
 * ```
 */
export class Inotify extends Fd {
  /** Watches `path` for `events` (bits of {@link InotifyEvents}); the same file again changes its watch. */
  addWatch(path: string, events: number): number {
    if (typeof path !== 'string' || path === '' || path.includes('\0')) {
      throw invalidArg('path', path, 'pass the path of a file or directory as a string without NUL')
    }
    checkInteger('events', events, 1, 0xffff_ffff, 'made of InotifyEvents, for example InotifyEvents.CREATE')
    return native.inotifyAddWatch(openFd(this), path, events)
  }

  /** Ends a watch; an event `IGNORED` follows. */
  removeWatch(wd: number): void {
    native.inotifyRemoveWatch(openFd(this), checkInteger('wd', wd, 0, 0x7fff_ffff))
  }

  /**
   * What happened since the last call, oldest first; empty = nothing. At most 64 KiB of events at once: the descriptor
   * stays readable when there are more.
   */
  readEvents(): InotifyEvent[] {
    const { bytes, words } = (inotifyScratch ??= inotifyBuffer())
    const length = fdHot.read(openFd(this), bytes)
    if (length === NOT_NOW) return []
    if (length < 0) throw failed('read', length, 'fd', this.fd)
    const events: InotifyEvent[] = []
    // struct inotify_event: wd, mask, cookie, len, then len bytes of name, padded with NUL to a multiple of 16.
    for (let at = 0; at + 16 <= length; ) {
      const word = at >> 2
      const mask = (words[word + 1] ?? 0) >>> 0
      const size = (words[word + 3] ?? 0) >>> 0
      events.push({
        wd: words[word] ?? -1,
        mask,
        events: mask & InotifyEvents.ALL_EVENTS,
        cookie: (words[word + 2] ?? 0) >>> 0,
        name: size === 0 ? '' : nameAt(bytes, at + 16, size),
      })
      at += 16 + size
    }
    return events
  }
}

function inotifyBuffer(): { bytes: Buffer; words: Int32Array } {
  const memory = new ArrayBuffer(INOTIFY_BUFFER)
  return { bytes: Buffer.from(memory), words: new Int32Array(memory) }
}

function nameAt(bytes: Buffer, start: number, size: number): string {
  const end = bytes.indexOf(0, start)
  return bytes.toString('utf8', start, end < 0 || end > start + size ? start + size : end)
}

/**
 * A watcher of files and directories (inotify(7)).
 *
 * @example
 * ```ts
 * import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
 * import { tmpdir } from 'node:os'
 * import { join } from 'node:path'
 * import { inotify, InotifyEvents } from 'fdmon/fd'
 *
 * const folder = mkdtempSync(join(tmpdir(), 'fdmon-'))
 * using watcher = inotify()
 * watcher.addWatch(folder, InotifyEvents.CLOSE_WRITE)
 * writeFileSync(join(folder, 'note.txt'), 'x')
 * console.log(watcher.readEvents()[0]?.name) // note.txt
 * rmSync(folder, { recursive: true })
 * ```
 */
export function inotify(): Inotify {
  return new Inotify(OWN, native.inotifyCreate())
}
