"""Copy a figure that a chapter measured to assets/readme.png: readme_picture.py CHAPTER.ipynb NUMBER"""

import base64
import json
import re
import sys
from pathlib import Path

notebook, number = Path(sys.argv[1]), int(sys.argv[2])
outputs = [output for cell in json.loads(notebook.read_text())["cells"] for output in cell.get("outputs", [])]
html = "".join("".join(output.get("data", {}).get("text/html", "")) for output in outputs)
figures = re.findall(r"data:image/png;base64,([\w+/=]+)", html)
Path("assets/readme.png").write_bytes(base64.b64decode(figures[number - 1]))
print(f"figure {number} of {len(figures)} in {notebook}")
