/** wllama in a headless Chromium; the CPU seconds are those of the whole browser. */

import { createReadStream, existsSync, statSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import path from 'node:path'
import type { Usage } from '../measure.ts'
import { folderOf, importPeer, Skip } from '../peers.ts'
import { treeCpuSeconds } from './processes.ts'
import { LONG_PROMPT, NEW_TOKENS, SHORT_PROMPT, serve, stopwatch } from './protocol.ts'

interface Page {
  goto(url: string): Promise<unknown>
  exposeFunction(name: string, call: (...args: never[]) => unknown): Promise<void>
  evaluate<T>(script: string): Promise<T>
}
interface Browser {
  newPage(): Promise<Page>
}
interface BrowserServer {
  process(): { pid: number }
  wsEndpoint(): string
  close(): Promise<void>
}
interface Playwright {
  readonly chromium: {
    launchServer(options: object): Promise<BrowserServer>
    connect(endpoint: string): Promise<Browser>
  }
}

const CANDIDATES = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome']
const FLAGS = [
  ...['--headless', '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-sync'],
  ...['--disable-background-networking', '--disable-component-update'],
]
const WORDS = ['time', 'year', 'people', 'way', 'day', 'man', 'thing', 'woman', 'life', 'child']

/** About as many tokens as words: wllama's completion takes text. */
const prompt = (words: number) =>
  Array.from({ length: words }, (_, i) => ` ${WORDS[(i * 7 + (i % 5)) % WORDS.length]}`).join('')

await serve(async ({ model, threads }) => {
  const executablePath = process.env.CHROMIUM ?? CANDIDATES.find((file) => existsSync(file))
  if (!executablePath) throw new Skip('no Chromium (CHROMIUM names another place)')
  if (!existsSync('/proc/self/stat')) throw new Skip('CPU seconds of a browser need /proc')
  const { chromium } = await importPeer<Playwright>('playwright-core', 'index.mjs')
  const server = serveFiles(model)
  await new Promise((resolve) => server.once('listening', resolve))
  const browserServer = await chromium.launchServer({ executablePath, args: FLAGS })
  const browser = await chromium.connect(browserServer.wsEndpoint())
  const page = await browser.newPage()
  const cpu = () => treeCpuSeconds(browserServer.process().pid)
  let watch = stopwatch(cpu)
  await page.exposeFunction('beginClock', () => {
    watch = stopwatch(cpu)
  })
  await page.exposeFunction('readClock', () => watch.usage())
  await page.goto(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`)

  /** Usage from the first token to the last, or from the start to the first one. */
  const complete = (text: string, tokens: number) =>
    page.evaluate<{ usage: Usage; made: number; read: number }>(`(async () => {
      const stream = await wllama.createCompletion({
        prompt: ${JSON.stringify(text)}, max_tokens: ${tokens}, temperature: 0, top_k: 1,
        cache_prompt: false, ignore_eos: true, stream: true, timings_per_token: true,
      })
      let made = 0, last
      if (${tokens} === 1) await beginClock()
      for await (const chunk of stream) {
        last = chunk
        if (made++ === 0 && ${tokens} > 1) await beginClock()
      }
      const usage = await readClock()
      return { usage, made, read: last?.usage?.prompt_tokens ?? last?.timings?.prompt_n ?? 0 }
    })()`)

  await page.evaluate(`(async () => {
    const { Wllama, LoggerWithoutDebug } = await import('/esm/index.js')
    globalThis.wllama = new Wllama({ default: '/esm/wasm/wllama.wasm' }, { logger: LoggerWithoutDebug })
    const blob = await (await fetch('/model.gguf')).blob()
    await wllama.loadModel([blob], {
      n_ctx: 1024, n_batch: 512, n_threads: ${threads}, n_gpu_layers: 0, warmup: false,
    })
  })()`)
  await complete(prompt(SHORT_PROMPT), 1)
  return {
    cpu,
    async decode() {
      const { usage, made } = await complete(prompt(SHORT_PROMPT), NEW_TOKENS + 1)
      return { ...usage, tokens: made - 1 }
    },
    async prompt() {
      const { usage, read } = await complete(prompt(LONG_PROMPT), 1)
      return { ...usage, tokens: read || LONG_PROMPT }
    },
    async close() {
      await browserServer.close()
      server.close()
    },
  }
})

function serveFiles(model: string) {
  const folder = folderOf('@wllama/wllama')
  const types: Record<string, string> = { '.js': 'text/javascript', '.wasm': 'application/wasm' }
  return createServer((request, response) => {
    const url = request.url ?? '/'
    // What shared memory, and with it threads, asks for.
    response.setHeader('Cross-Origin-Opener-Policy', 'same-origin')
    response.setHeader('Cross-Origin-Embedder-Policy', 'require-corp')
    if (url === '/') {
      response.setHeader('Content-Type', 'text/html')
      response.end('<!doctype html><title>bench</title>')
      return
    }
    const file = url === '/model.gguf' ? model : path.join(folder, path.normalize(url))
    if (!existsSync(file)) {
      response.writeHead(404).end()
      return
    }
    response.setHeader('Content-Type', types[path.extname(file)] ?? 'application/octet-stream')
    response.setHeader('Content-Length', statSync(file).size)
    createReadStream(file).pipe(response)
  }).listen(0, '127.0.0.1')
}
