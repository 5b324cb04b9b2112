import { createHash } from 'node:crypto'
import { cpSync, createReadStream, existsSync, readdirSync, statSync } from 'node:fs'
import path from 'node:path'
import { svelte } from '@sveltejs/vite-plugin-svelte'
import { defineConfig, type Plugin } from 'vite'

const DEMO = path.resolve(import.meta.dirname, '../../packages/demo-model/model')
const NEEDED =
  /^(config|tokenizer|tokenizer_config|generation_config)\.json$|^model\.safetensors$|\.txt$/

/** Without them memory can't be shared between threads. A static host that can't send them has the service worker. */
const headers = {
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-embedder-policy': 'require-corp',
}

/** The bundled model lies beside the page. */
function demoModel(): Plugin {
  return {
    name: 'demo-model',
    configureServer(server) {
      server.middlewares.use('/demo', (request, response, next) => {
        const name = path.basename(request.url ?? '')
        const file = path.join(DEMO, name)
        if (!NEEDED.test(name) || !existsSync(file)) return next()
        response.setHeader('content-length', statSync(file).size)
        createReadStream(file).pipe(response)
      })
    },
    writeBundle({ dir }) {
      for (const name of readdirSync(DEMO).filter((name) => NEEDED.test(name))) {
        cpSync(path.join(DEMO, name), path.join(dir!, 'demo', name))
      }
    },
  }
}

/** The service worker knows what there is to keep, and is another one when any of it changes. */
function offline(): Plugin {
  return {
    name: 'offline',
    enforce: 'post',
    generateBundle(_, bundle) {
      const worker = bundle['service-worker.js']
      if (worker?.type !== 'chunk') throw new Error('the service worker was not built')
      const built = Object.keys(bundle).filter((name) => name !== worker.fileName)
      // Variants of the kernels that a browser with threads does not run are kept when they are used.
      const kept = built.filter((name) => !name.endsWith('.wasm') || /-threads/.test(name))
      const files = ['./', ...kept, 'icon.svg', 'manifest.webmanifest']
      const version = createHash('sha256').update(files.join('\n')).digest('hex').slice(0, 16)
      worker.code = worker.code
        .replace('__FILES__', JSON.stringify(files))
        .replace('__VERSION__', JSON.stringify(version))
    },
  }
}

export default defineConfig({
  base: './',
  plugins: [svelte(), demoModel(), offline()],
  server: { headers },
  preview: { headers },
  worker: { format: 'es', rolldownOptions: { external: ['webgpu'] } },
  build: {
    target: 'es2023',
    // Dawn is for Node; a browser without WebGPU says so.
    rolldownOptions: {
      external: ['webgpu'],
      checks: { pluginTimings: false },
      input: {
        index: path.join(import.meta.dirname, 'index.html'),
        'service-worker': path.join(import.meta.dirname, 'src/service-worker.ts'),
      },
      output: {
        entryFileNames: ({ name }) =>
          name === 'service-worker' ? '[name].js' : 'assets/[name]-[hash].js',
      },
    },
  },
})
