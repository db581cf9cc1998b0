// The drawings that show no numbers: the way of an event, and the handshake of a producer with a loop that spins.
import { box, line, path, picture, text } from './svg.mjs'

export function way() {
  return picture(860, 334, 'The way of an event: from a descriptor through the monitor, or from a word of memory through the spin, to the ready list and the handler', [
    text(20, 28, 'the kernel', { fill: 'soft' }),
    text(20, 198, 'user space', { fill: 'soft' }),
    line(20, 172, 840, 172, { stroke: 'line', dash: '5 5' }),
    box(20, 62, 140, 64, ['descriptor', 'readable, writable'], { stroke: 'a' }),
    box(240, 62, 170, 64, ['monitor: wait', 'poll · epoll · io_uring'], { stroke: 'a' }),
    box(20, 230, 140, 64, ['word of memory', 'a producer stores'], { stroke: 'b' }),
    box(240, 230, 170, 64, ['spin: ask poll', 'for the window, no call'], { stroke: 'b' }),
    box(500, 230, 130, 64, ['ready list', 'order of detection'], { stroke: 'c' }),
    box(710, 230, 130, 64, ['handler', 'read · pollReady'], { stroke: 'c' }),
    line(160, 94, 236, 94, { stroke: 'a', arrow: true }),
    line(160, 262, 236, 262, { stroke: 'b', arrow: true }),
    line(410, 262, 496, 262, { stroke: 'b', arrow: true }),
    text(453, 252, 'hit', { fill: 'b', anchor: 'middle', size: 12 }),
    path('M410 94H565V226', { stroke: 'a', arrow: true }),
    text(488, 84, 'events', { fill: 'a', anchor: 'middle', size: 12 }),
    line(630, 262, 706, 262, { stroke: 'c', arrow: true }),
    text(668, 252, 'dispatch', { fill: 'c', anchor: 'middle', size: 12 }),
    path('M325 226V130', { stroke: 'soft', arrow: true, dash: '4 4' }),
    text(335, 200, 'nothing within the window: sleep', { fill: 'soft', size: 12 }),
    path('M775 298V322H325V298', { stroke: 'soft', arrow: true, dash: '4 4' }),
    text(550, 315, 'the next turn', { fill: 'soft', anchor: 'middle', size: 12 }),
  ])
}

export function handshake() {
  const [producer, loop] = [150, 690]
  const rows = [
    { y: 74, from: loop, to: producer, words: 'poll begin: suppress = 1', stroke: 'b' },
    { y: 116, from: producer, to: loop, words: 'publish; suppress is 1: no signal', stroke: 'b', note: 'hit: pollReady, no system call' },
    { y: 158, from: producer, to: loop, words: 'publish; suppress is 1: no signal', stroke: 'b', note: 'hit: pollReady, no system call' },
    { y: 216, from: loop, to: producer, words: 'poll end: suppress = 0, full barrier', stroke: 'a', note: 'asks poll once more, then sleeps' },
    { y: 268, from: producer, to: loop, words: 'publish; suppress is 0: ring the doorbell', stroke: 'a', note: 'awake: read' },
  ]
  return picture(860, 320, 'Poll begin tells the producer not to signal, poll end that it must; what is published in between costs no system call', [
    text(producer, 28, 'producer', { anchor: 'middle', weight: 600 }),
    text(loop, 28, 'loop', { anchor: 'middle', weight: 600 }),
    line(producer, 40, producer, 300, { stroke: 'line', width: 2 }),
    line(loop, 40, loop, 300, { stroke: 'line', width: 2 }),
    path(`M${loop + 8} 70V210`, { stroke: 'b', width: 6, opacity: 0.6 }),
    text(loop + 20, 142, 'spins', { fill: 'b', size: 12 }),
    path(`M${loop + 8} 224V264`, { stroke: 'a', width: 6, opacity: 0.6 }),
    text(loop + 20, 248, 'sleeps', { fill: 'a', size: 12 }),
    rows.map(({ y, from, to, words, stroke, note }) => [
      line(from, y, to + (to > from ? -4 : 4), y, { stroke, arrow: true }),
      text((producer + loop) / 2, y - 7, words, { anchor: 'middle', size: 12 }),
      note && text(loop - 10, y + 16, note, { anchor: 'end', size: 12, fill: 'soft' }),
    ]),
  ])
}
