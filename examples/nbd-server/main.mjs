// `node examples/nbd-server/main.mjs`: the way into main.ts for every version of Node, whether it can read TypeScript or not.
import { register } from 'tsx/esm/api'

register()
await import('./main.ts')
