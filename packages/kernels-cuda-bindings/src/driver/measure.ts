/** How long kernels take on the GPU itself: recorded as one graph, so that the time of calling them does not count. */

import type { Driver } from './driver.ts'

/** Other calls than launches are allowed while a graph is recorded. */
const RELAXED = 2

/** Runs what `work` queues on the stream, and gives the seconds that it took the second time. */
export function measureGraph(driver: Driver, stream: unknown, work: () => void): number {
  driver.call('cuStreamBeginCapture_v2', 'recording kernels', stream, RELAXED)
  const graph: unknown[] = [null]
  try {
    work()
  } finally {
    driver.call('cuStreamEndCapture', 'recording kernels', stream, graph)
  }
  const measuring = 'measuring'
  const instance = driver.get('cuGraphInstantiateWithFlags', measuring, graph[0], 0)
  const events = [0, 1].map(() => driver.get('cuEventCreate', measuring, 0))
  try {
    driver.call('cuGraphLaunch', measuring, instance, stream)
    driver.call('cuEventRecord', measuring, events[0], stream)
    driver.call('cuGraphLaunch', measuring, instance, stream)
    driver.call('cuEventRecord', measuring, events[1], stream)
    driver.call('cuStreamSynchronize', measuring, stream)
    return driver.get<number>('cuEventElapsedTime', measuring, ...events) / 1000
  } finally {
    for (const event of events) driver.attempt('cuEventDestroy_v2', event)
    driver.attempt('cuGraphExecDestroy', instance)
    driver.attempt('cuGraphDestroy', graph[0])
  }
}
