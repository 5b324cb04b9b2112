import { readFile } from 'node:fs/promises'
import { defineConfig } from 'tsup'
import library from '../../tooling/tsup/library.ts'

/** The worker is a file of its own, and has another ending once it is built. */
export default defineConfig({
  ...library,
  entry: ['src/index.ts', 'src/worker.ts'],
  dts: { entry: 'src/index.ts' },
  esbuildPlugins: [
    {
      name: 'worker-url',
      setup(build) {
        build.onLoad({ filter: /[\\/]spawn\.ts$/ }, async ({ path }) => {
          const source = await readFile(path, 'utf8')
          return { contents: source.replaceAll('./worker.ts', './worker.js'), loader: 'ts' }
        })
      },
    },
  ],
})
