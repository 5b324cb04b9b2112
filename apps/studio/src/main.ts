import { connect, proxy } from './engine/connect.ts'

Object.assign(globalThis, { connect, proxy })
