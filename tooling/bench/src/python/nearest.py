"""faiss's search for the nearest of a table of vectors: nearest.py VECTORS TABLES. VECTORS is f32 [n][8]; TABLES has
f32 tables of 256 and of 4096 entries, one behind the other. Prints a line of JSON for each run; one thread."""
import json, sys, time
import faiss
import numpy as np

faiss.omp_set_num_threads(1)
vectors = np.fromfile(sys.argv[1], dtype=np.float32).reshape(-1, 8)
tables = np.fromfile(sys.argv[2], dtype=np.float32).reshape(-1, 8)
for entries, table in ((256, tables[:256]), (4096, tables[256:])):
    index = faiss.IndexFlatL2(8); index.add(np.ascontiguousarray(table))
    index.search(vectors, 1)
    for _ in range(5):
        start = time.process_time(); index.search(vectors, 1)
        print(json.dumps({'what': f'{entries}', 'cpu': time.process_time() - start}), flush=True)
