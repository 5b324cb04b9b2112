import { defineConfig } from 'tsup'
import library from '../../tooling/tsup/library.ts'

export default defineConfig({ ...library, entry: ['src/main.ts'], dts: false, target: 'node22' })
