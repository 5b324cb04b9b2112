import { defineConfig } from 'tsup'

/** How every library package is built: ESM and types from src/index.ts. */
export default defineConfig({
  entry: ['src/index.ts'],
  format: ['esm'],
  dts: true,
  clean: true,
  target: 'es2023',
})
