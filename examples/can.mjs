// A frame over a virtual CAN bus. Before: ip link add dev vcan0 type vcan && ip link set vcan0 up
import { AioContext, FdmonError } from 'fdmon'
import { canSocket, read, write } from 'fdmon/fd'

try {
  const [sender, receiver] = [canSocket('vcan0'), canSocket('vcan0')]
  const frame = Buffer.alloc(16) // struct can_frame: id, length, data
  frame.writeUInt32LE(0x100, 0)
  frame[4] = 2
  frame.set([0xca, 0xfe], 8)
  write(sender, frame)

  const ctx = new AioContext()
  const got = Buffer.alloc(16)
  ctx.setFdHandler(receiver, { read: (fd) => read(fd, got) > 0 && ctx.stop() })
  ctx.run()
  console.log(`id 0x${got.readUInt32LE(0).toString(16)}, data ${got.toString('hex', 8, 10)}`)
  ctx.close()
  for (const fd of [sender, receiver]) fd.close()
} catch (error) {
  if (!(error instanceof FdmonError)) throw error
  console.log(`no frame was sent: ${error.message}`)
}
