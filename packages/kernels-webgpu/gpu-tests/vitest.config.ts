import { defineConfig } from 'vitest/config'

/** Two files at a time: software drivers compile shaders on one core, and that is most of the time. */
export default defineConfig({
  test: { dir: import.meta.dirname, testTimeout: 300_000, maxWorkers: 2 },
})
